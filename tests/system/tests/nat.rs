//! Mode `nat` under `tally up`, in a network namespace of its own: woken from zero in user space,
//! then by the kernel; and refused where the capability is missing.

use serde_json::{Value, json};
use system_tests::namespace::{Namespace, run};
use system_tests::platform::{Platform, demo_service};
use system_tests::process::Process;
use system_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PORT: u16 = 5432;
/// Something hangs.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn service(mode: &str, max: u32) -> Value {
    let mut service = demo_service(0, max);
    service["route"] = json!({"mode": mode, "port": PORT});
    service
}

/// One connection with one request; the answer's status.
async fn ask() -> Result<String, String> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = answer.await.map_err(|error| error.to_string())?;
    Ok(text.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn tables() -> String {
    run("nft list ruleset").unwrap_or_default()
}

#[test]
fn a_service_wakes_in_user_space_and_goes_on_in_the_kernel() {
    const TEST: &str = "a_service_wakes_in_user_space_and_goes_on_in_the_kernel";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.play(true, || async {
        let platform = Platform::start(None).await;
        platform.put_service("db", &service("nat", 2)).await;
        assert_eq!(ask().await.as_deref(), Ok("200"), "held, woken, served");
        until("the kernel has it", || async {
            let tables = tables();
            if tables.contains("ip-db") { Ok(()) } else { Err(tables) }
        })
        .await;
        for _ in 0..50 {
            assert_eq!(ask().await.as_deref(), Ok("200"));
        }
        // Nobody asks any more: to zero by the idle time-out, and the rule is gone.
        until("it sleeps again", || async {
            let (service, tables) = (platform.service("db").await?, tables());
            let asleep = service.state.ready == 0 && !tables.contains("ip-db");
            if asleep { Ok(()) } else { Err(format!("{:?} {tables}", service.state)) }
        })
        .await;
        assert_eq!(ask().await.as_deref(), Ok("200"), "woken again");
        platform.down().await;
        assert!(!tables().contains("inet tally-"), "nothing leads to what is stopped");
    });
}

#[test]
fn without_the_capability_it_is_refused_with_what_to_do_and_tcp_goes() {
    const TEST: &str = "without_the_capability_it_is_refused_with_what_to_do_and_tcp_goes";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.play(false, || async {
        let platform = Platform::start(None).await;
        let refused = platform.api().put("/v1/services/db", &service("nat", 1)).await;
        assert_eq!(refused.status, 422);
        let problem = refused.body.to_string();
        for word in ["/route/mode", "CAP_NET_ADMIN", "AmbientCapabilities", "mode tcp"] {
            assert!(problem.contains(word), "{word}: {problem}");
        }
        platform.put_service("db", &service("tcp", 1)).await;
        assert_eq!(ask().await.as_deref(), Ok("200"));
        platform.down().await;
    });
}

/// Nobody but the command knows the addresses of a `tally proxy`: its end is the end of its port.
#[test]
fn a_proxy_takes_its_table_along() {
    const TEST: &str = "a_proxy_takes_its_table_along";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.play(true, || async {
        let folder = tempfile::tempdir().expect("a folder");
        let instance = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = instance.local_addr().expect("its address").to_string();
        let from = format!("127.0.0.1:{PORT}");
        let args = ["proxy", "--from", &from, "--to", &to, "--mode", "nat"].map(str::to_owned);
        let proxy = Process::start("proxy", folder.path(), &args);
        until("the kernel has it", || async {
            let tables = tables();
            if tables.contains(&to.replace(':', " port ")) || tables.contains(&to) {
                Ok(())
            } else {
                Err(tables)
            }
        })
        .await;
        let mut stream = TcpStream::connect(&from).await.expect("a connection");
        stream.write_all(b"x").await.expect("sent");
        let arrives = async {
            loop {
                let (mut arrived, _) = instance.accept().await.expect("a connection");
                // Checks come and go without a word.
                if let Ok(byte) = arrived.read_u8().await {
                    return byte;
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, arrives).await.expect("in time"), b'x');
        drop(stream);
        assert_eq!(proxy.interrupt().await.code(), Some(0));
        assert!(!tables().contains("inet tally-"), "{}", tables());
    });
}
