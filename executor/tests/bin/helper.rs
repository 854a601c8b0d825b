//! What the executor's tests run: a shim, an executor to be killed, and a service that misbehaves
//! on request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["instance-shim", dir] => executor::shim_main(Path::new(dir)),
        ["serve", port, flags @ ..] => serve(port, flags),
        ["deaf"] => loop {
            std::thread::park();
        },
        ["crash"] => ExitCode::from(3),
        // A stop command: asks the service to end by itself.
        ["ask", port, what] => match ask(port, what) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        ["executor", dir, node, key, ports] => run_executor(dir, node, key, ports),
        _ => ExitCode::from(2),
    }
}

fn ask(port: &str, what: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    write!(stream, "GET /{what} HTTP/1.1\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(())
}

fn serve(port: &str, flags: &[&str]) -> ExitCode {
    if flags.contains(&"--ignore-term") {
        let ignored = Arc::new(AtomicBool::new(false));
        if signal_hook::flag::register(15, ignored).is_err() {
            return ExitCode::from(4);
        }
    }
    let Ok(listener) = TcpListener::bind(format!("0.0.0.0:{port}")) else {
        return ExitCode::from(5);
    };
    let sick = AtomicBool::new(false);
    for stream in listener.incoming().flatten() {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            continue;
        }
        let path = line.split(' ').nth(1).unwrap_or("/");
        let mut status = "200 OK";
        let body = match path {
            "/pid" => std::process::id().to_string(),
            "/env" => std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect(),
            "/exit" => std::process::exit(7),
            "/end" => {
                answer(stream, status, "bye");
                return ExitCode::SUCCESS;
            }
            "/sick" => {
                sick.store(true, Ordering::Relaxed);
                String::new()
            }
            "/background" => background(),
            "/say" => {
                let mut out = std::io::stdout();
                for i in 0..5 {
                    let _told = writeln!(out, "said {i}");
                }
                eprintln!("to stderr");
                String::new()
            }
            _ => {
                if sick.load(Ordering::Relaxed) {
                    status = "500 Sick";
                }
                String::new()
            }
        };
        answer(stream, status, &body);
    }
    ExitCode::SUCCESS
}

/// Something in its own process group, with a cleared environment: the hardest to find again.
fn background() -> String {
    let mut command = Command::new("/bin/sleep");
    command.arg("600").env_clear().process_group(0);
    match command.spawn() {
        Ok(child) => child.id().to_string(),
        Err(error) => error.to_string(),
    }
}

fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _peer_gone =
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn run_executor(dir: &str, node: &str, key: &str, ports: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let ended = runtime.block_on(async {
        let clock = Arc::new(chassis::SystemClock::new());
        let node: domain::NodeId = node.parse().map_err(|_why| "node")?;
        let (first, last) = ports.split_once('-').ok_or("ports")?;
        let ports = first.parse().map_err(|_why| "first")?..=last.parse().map_err(|_why| "last")?;
        let config = executor::Config {
            node_dir: Path::new(dir).join("node"),
            node: node.clone(),
            cluster: "test".to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            ports,
            load_url: Some("http://127.0.0.1:7402".to_owned()),
            docker_host: "unix:///nowhere/docker.sock".to_owned(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        };
        let listen = chassis::Listen::Unix(Path::new(dir).join("executor.sock"));
        let program = std::env::current_exe().map_err(|_why| "exe")?;
        let deps = executor::Deps {
            verifier: chassis::Verifier::new(key, node, clock.clone()).map_err(|_why| "key")?,
            listener: chassis::Listener::bind(&listen).await.map_err(|_why| "listen")?,
            clock,
            shim: executor::ShimProgram { program, arguments: vec!["instance-shim".to_owned()] },
            metrics: chassis::Metrics::new(),
            readiness: chassis::Readiness::new(),
        };
        executor::run(config, deps, chassis::Shutdown::new()).await.map_err(|_why| "run")
    });
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
