//! Mode `nat` under `tally up`, in a network namespace of its own: woken from zero in user space,
//! then by the kernel; and refused where the capability is missing.

use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space,
    remove_capability_from_bounding_set,
};
use serde_json::{Value, json};
use std::future::Future;
use std::os::fd::AsFd;
use std::process::Command;
use system_tests::platform::{Platform, demo_service};
use system_tests::skipped;
use system_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PORT: u16 = 5432;

fn run(words: &str) -> Result<String, String> {
    let mut words = words.split(' ');
    let program = words.next().unwrap_or_default();
    let output =
        Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A namespace that goes with the value.
struct Namespace(String);

impl Namespace {
    /// `None`, said, where none can be made.
    fn new(test: &str) -> Option<Namespace> {
        if !rustix::process::geteuid().is_root() {
            skipped(test, "only root may make network namespaces");
            return None;
        }
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            if let Err(why) = run(&format!("{program} -V")) {
                skipped(test, &format!("install {package}: {why}"));
                return None;
            }
        }
        let namespace = Namespace(format!("s{}-{}", std::process::id(), test.len()));
        let made = run(&format!("ip netns add {}", namespace.0))
            .and_then(|_| run(&format!("ip -n {} link set lo up", namespace.0)));
        match made {
            Ok(_) => Some(namespace),
            Err(why) => {
                skipped(test, &format!("no network namespace may be made: {why}"));
                None
            }
        }
    }

    /// Plays a story on a thread in the namespace, with all that it starts.
    fn play<F: Future<Output = ()>>(&self, able: bool, story: impl FnOnce() -> F + Send + 'static) {
        let path = format!("/run/netns/{}", self.0);
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("into the namespace");
            if !able {
                remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN)
                    .expect("less than we had");
            }
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(story());
        });
        thread.join().expect("the story went well");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = run(&format!("ip netns del {}", self.0));
    }
}

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
        assert!(!tables().contains("ip-db"), "nothing leads to what is stopped");
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
