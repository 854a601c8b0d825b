//! Mode `nat` on the real kernel: a client, a balancer and instances, each in a network namespace
//! of its own, joined by wires. The test's body runs in the balancer's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use domain::{Load, LoadReport, LoadSource, RouteMode, RouteState, ServiceFront};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use scoreboard::Board;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use support::{PATIENCE, Running, Setup, front, id, ready, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const FRONT: &str = "10.77.1.1:5432";

fn run(words: &str) -> Result<String, String> {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    let output =
        Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Three namespaces: client 10.77.1.2, balancer 10.77.1.1 and 10.77.2.1, instances 10.77.2.2 on.
struct Wires {
    name: String,
}

impl Wires {
    /// `None`, said, where they cannot be made.
    fn new(test: &str) -> Option<Wires> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let skip = |why: &str| {
            println!("SKIPPED: {test}: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skip("only root may make network namespaces");
        }
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            if let Err(why) = run(&format!("{program} -V")) {
                return skip(&format!("install {package}: {why}"));
            }
        }
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let wires = Wires { name: name.clone() };
        for place in ["c", "b", "i"] {
            if let Err(why) = run(&format!("ip netns add {name}{place}")) {
                return skip(&format!("no network namespace may be made: {why}"));
            }
            wires.ip(place, "link set lo up");
        }
        for (place, near, far) in [("c", "10.77.1.2", "10.77.1.1"), ("i", "10.77.2.2", "10.77.2.1")]
        {
            let link = format!("link add wire type veth peer name to{place} netns {name}b");
            wires.ip(place, &link);
            wires.ip(place, &format!("addr add {near}/24 dev wire"));
            wires.ip(place, "link set wire up");
            wires.ip("b", &format!("addr add {far}/24 dev to{place}"));
            wires.ip("b", &format!("link set to{place} up"));
        }
        for n in 3..12 {
            wires.ip("i", &format!("addr add 10.77.2.{n}/24 dev wire"));
        }
        // The client knows no way to the instances, nor they to it: all must pass the balancer.
        run(&format!("ip netns exec {name}b sysctl -qw net.ipv4.ip_forward=1")).unwrap();
        Some(wires)
    }

    fn ip(&self, place: &str, words: &str) {
        run(&format!("ip -n {}{place} {words}", self.name)).unwrap();
    }

    fn nft(&self, words: &str) -> Result<String, String> {
        run(&format!("ip netns exec {}b nft {words}", self.name))
    }

    /// Runs something on a thread of its own in a namespace, with all it starts.
    fn within<T, F>(&self, place: &str, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let path = format!("/run/netns/{}{place}", self.name);
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(work())
        });
        thread.join().unwrap()
    }

    /// Opens connections from the client, one after the other; answers who took each, with the
    /// connections.
    async fn call(self: &Arc<Wires>, count: usize) -> Vec<(u8, std::net::TcpStream)> {
        let wires = Arc::clone(self);
        let calling = tokio::task::spawn_blocking(move || {
            wires.within("c", move || async move {
                let mut taken = Vec::new();
                for _ in 0..count {
                    taken.push(tokio::time::timeout(PATIENCE, one()).await.expect("in time"));
                }
                taken
            })
        });
        calling.await.unwrap()
    }

    /// Of so many new connections, how many each of ten instances took.
    async fn shares(self: &Arc<Wires>, count: usize) -> [usize; 10] {
        let mut shares = [0; 10];
        for (who, _) in self.call(count).await {
            shares[usize::from(who)] += 1;
        }
        shares
    }
}

/// Takes the namespaces away when a test ends, however it ends. Threads in them may be there a
/// little longer, and so hold the wires: it does not wait for them.
struct Cleaning(String);

impl Drop for Cleaning {
    fn drop(&mut self) {
        for place in ["c", "b", "i"] {
            let _gone = run(&format!("ip netns del {}{place}", self.0));
        }
    }
}

async fn one() -> (u8, std::net::TcpStream) {
    loop {
        let Ok(mut stream) = TcpStream::connect(FRONT).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut who = [0];
        if stream.read_exact(&mut who).await.is_ok() {
            return (who[0], stream.into_std().unwrap());
        }
    }
}

/// Says a byte and hears it again.
async fn still_talks(stream: &std::net::TcpStream) -> bool {
    let mut stream = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let mut byte = [7];
    let talk = async {
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await
    };
    matches!(tokio::time::timeout(PATIENCE, talk).await, Ok(Ok(_)))
}

/// Instances that say their number and then what they hear, on the far side.
struct Instances {
    stop: Vec<tokio::sync::oneshot::Sender<()>>,
    from: Arc<std::sync::Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
}

fn address(n: usize) -> SocketAddr {
    format!("10.77.2.{}:9000", n + 3).parse().unwrap()
}

impl Instances {
    fn start(wires: &Arc<Wires>, count: usize) -> Instances {
        let (from, accepted) = (Arc::default(), Arc::default());
        let mut instances = Instances { stop: Vec::new(), from, accepted };
        for n in 0..count {
            let (stop, stopped) = tokio::sync::oneshot::channel();
            instances.stop.push(stop);
            let (wires, from) = (Arc::clone(wires), Arc::clone(&instances.from));
            let accepted = Arc::clone(&instances.accepted);
            let (bound, binding) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                wires.within("i", move || async move {
                    let listener = TcpListener::bind(address(n)).await.unwrap();
                    bound.send(()).unwrap();
                    let serving = serve(listener, u8::try_from(n).unwrap(), from, accepted);
                    tokio::select! {
                        () = serving => {}
                        _ = stopped => {}
                    }
                });
            });
            binding.recv().unwrap();
        }
        instances
    }
}

async fn serve(
    listener: TcpListener,
    n: u8,
    from: Arc<std::sync::Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
) {
    let mut talks = JoinSet::new();
    loop {
        let (mut stream, peer) = listener.accept().await.unwrap();
        from.lock().unwrap().push(peer.ip().to_string());
        accepted.fetch_add(1, Relaxed);
        talks.spawn(async move {
            if stream.write_all(&[n]).await.is_ok() {
                let (mut read, mut write) = stream.split();
                let _ends = tokio::io::copy(&mut read, &mut write).await;
            }
        });
    }
}

fn natted() -> ServiceFront {
    let mut front = front("db");
    front.mode = RouteMode::Nat;
    front.port = Some(5432);
    front.max_in_flight = 10_000;
    front
}

fn routes(count: usize) -> Vec<domain::RouteEntry> {
    let each = (0..count).map(|n| ready("db", n, address(n)));
    each.map(|route| domain::RouteEntry { max_in_flight: 10_000, ..route }).collect()
}

async fn balancer() -> Running {
    let listen = Some("10.77.1.1:8080".parse().unwrap());
    let running = Running::with(Setup { listen, ..Setup::default() }).await;
    running.board.publish_front(&natted()).await.unwrap();
    running
}

/// Publishes routes and waits until the kernel has them.
async fn in_kernel(wires: &Wires, running: &Running, entries: Vec<domain::RouteEntry>) {
    let standing: Vec<String> = entries
        .iter()
        .filter(|e| e.state == RouteState::Ready)
        .map(|e| e.address.ip().to_string())
        .collect();
    running.publish_routes("db", entries).await;
    until("the kernel has the routes", || async {
        let table = wires.nft("list table inet tally-b1").unwrap_or_default();
        (0..8).all(|n| {
            let ip = address(n).ip().to_string();
            let has = table.contains(&format!("{ip} ")) || table.contains(&format!("{ip}:"));
            has == standing.contains(&ip)
        })
    })
    .await;
}

async fn stop(running: Running) {
    running.shutdown.start();
    running.ended.await.unwrap().unwrap();
}

/// Runs a test's body in the balancer's namespace.
fn tested<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Arc<Wires>) -> F + Send + 'static) {
    if let Some(wires) = Wires::new(test) {
        let _cleaning = Cleaning(wires.name.clone());
        let wires = Arc::new(wires);
        let inner = Arc::clone(&wires);
        wires.within("b", move || body(inner));
    }
}

#[test]
fn connections_follow_the_loads_and_answers_pass_the_balancer() {
    tested("connections_follow_the_loads_and_answers_pass_the_balancer", |wires| async move {
        let instances = Instances::start(&wires, 2);
        let running = balancer().await;
        in_kernel(&wires, &running, routes(2)).await;
        let [a, b, ..] = wires.shares(400).await;
        assert!(a > 120 && b > 120, "equal at first: {a} and {b}");
        let from = instances.from.lock().unwrap().clone();
        // The balancer's own looks at ports come from the same address.
        assert!(from.iter().all(|ip| ip == "10.77.2.1"), "answers pass the balancer: {from:?}");
        let seq = AtomicU32::new(1);
        until("the idle one gets five times as many", || async {
            let seq = u64::from(seq.fetch_add(1, Relaxed));
            let report = |n, load| LoadReport {
                instance: id("db", n),
                load: Load::from_ten_thousandths(load),
                in_flight: None,
                rps_milli: None,
                eps_milli: None,
                seq: Some(seq),
                source: LoadSource::Pushed,
            };
            running.board.record(&[report(0, 9000), report(1, 1000)]).await.unwrap();
            let [a, b, ..] = wires.shares(60).await;
            b > 5 * a.max(1)
        })
        .await;
        stop(running).await;
    });
}

#[test]
fn a_draining_instance_keeps_its_connections_and_gets_no_new_ones() {
    tested("a_draining_instance_keeps_its_connections_and_gets_no_new_ones", |wires| async move {
        let _instances = Instances::start(&wires, 2);
        let running = balancer().await;
        in_kernel(&wires, &running, routes(2)).await;
        let kept = wires.call(40).await;
        assert!(kept.iter().any(|(who, _)| *who == 0) && kept.iter().any(|(who, _)| *who == 1));
        until("the kernel's connections are counted", || async {
            running.demand("db").await.is_some_and(|d| {
                d.open_connections == 40 && d.in_flight.values().sum::<u32>() == 40
            })
        })
        .await;
        let mut entries = routes(2);
        entries[0].state = RouteState::Draining;
        in_kernel(&wires, &running, entries.clone()).await;
        let shares = wires.shares(100).await;
        assert_eq!((shares[0], shares[1]), (0, 100));
        for (who, stream) in &kept {
            assert!(still_talks(stream).await, "a connection of {who} was lost");
        }
        let demand = running.demand("db").await.unwrap();
        let draining = demand.in_flight.get(&id("db", 0)).copied();
        let wanted = kept.iter().filter(|(who, _)| *who == 0).count();
        assert_eq!(draining.map(|n| n as usize), Some(wanted), "safe stop sees them");
        stop(running).await;
    });
}

#[test]
fn a_gone_instance_takes_its_connections_along_at_once() {
    tested("a_gone_instance_takes_its_connections_along_at_once", |wires| async move {
        let _instances = Instances::start(&wires, 2);
        let running = balancer().await;
        in_kernel(&wires, &running, routes(2)).await;
        let kept = wires.call(40).await;
        // Its host vanishes: nobody answers, nobody refuses, not even a reset comes.
        wires.ip("i", "addr del 10.77.2.3/24 dev wire");
        in_kernel(&wires, &running, routes(2).split_off(1)).await;
        for (who, stream) in &kept {
            let alive = tokio::time::timeout(Duration::from_secs(5), still_talks(stream)).await;
            assert_eq!(alive, Ok(*who == 1), "the dead one's clients hear of it, others do not");
        }
        stop(running).await;
    });
}

#[test]
fn an_instance_that_stops_listening_gets_nothing_more() {
    tested("an_instance_that_stops_listening_gets_nothing_more", |wires| async move {
        let mut instances = Instances::start(&wires, 2);
        let running = balancer().await;
        in_kernel(&wires, &running, routes(2)).await;
        // Still in the routes: the balancer finds out by itself.
        drop(instances.stop.remove(0));
        until("only the living one is left", || async {
            let table = wires.nft("list table inet tally-b1").unwrap_or_default();
            !table.contains("10.77.2.3")
        })
        .await;
        assert_eq!(wires.shares(50).await[1], 50);
        stop(running).await;
    });
}

#[test]
fn an_empty_service_holds_and_serves_and_then_leaves_it_to_the_kernel() {
    tested(
        "an_empty_service_holds_and_serves_and_then_leaves_it_to_the_kernel",
        |wires| async move {
            let instances = Instances::start(&wires, 1);
            let running = balancer().await;
            running.publish_routes("db", Vec::new()).await;
            let calling = tokio::spawn({
                let wires = Arc::clone(&wires);
                async move { wires.call(1).await }
            });
            until("it waits", || async {
                running.demand("db").await.is_some_and(|d| d.queued == 1)
            })
            .await;
            in_kernel(&wires, &running, routes(1)).await;
            let held = calling.await.unwrap();
            assert!(still_talks(&held[0].1).await, "who waited is served in user space");
            assert_eq!(wires.shares(20).await[0], 20);
            assert!(instances.accepted.load(Relaxed) >= 21);
            until("twenty went by themselves", || async {
                running.demand("db").await.is_some_and(|d| d.open_connections == 1)
            })
            .await;
            // The last instance goes: back to the user-space listener, which holds.
            running.publish_routes("db", Vec::new()).await;
            let calling = tokio::spawn({
                let wires = Arc::clone(&wires);
                async move { wires.call(1).await }
            });
            until("it waits", || async {
                running.demand("db").await.is_some_and(|d| d.queued == 1)
            })
            .await;
            let table = wires.nft("list table inet tally-b1").unwrap();
            assert!(!table.contains("10.77.2.3"), "{table}");
            in_kernel(&wires, &running, routes(1)).await;
            calling.await.unwrap();
            drop(held);
            stop(running).await;
        },
    );
}

#[test]
fn the_kernel_goes_on_without_the_balancer_and_the_next_one_takes_over() {
    tested(
        "the_kernel_goes_on_without_the_balancer_and_the_next_one_takes_over",
        |wires| async move {
            let _instances = Instances::start(&wires, 3);
            let running = balancer().await;
            in_kernel(&wires, &running, routes(2)).await;
            let kept = wires.call(10).await;
            stop(running).await;
            assert_eq!(wires.shares(50).await.iter().sum::<usize>(), 50, "new ones too");
            wires.nft("add chain inet tally-b1 ip-forgotten").unwrap();
            let running = balancer().await;
            in_kernel(&wires, &running, routes(3)).await;
            let table = wires.nft("list table inet tally-b1").unwrap();
            assert!(!table.contains("ip-forgotten"), "{table}");
            for (who, stream) in &kept {
                assert!(still_talks(stream).await, "a connection of {who} was lost");
            }
            // Those with open connections have less weight: enough calls that each is seen.
            let shares = wires.shares(600).await;
            assert!(shares[..3].iter().all(|n| *n > 5), "{shares:?}");
            stop(running).await;
        },
    );
}

#[test]
fn who_died_while_the_balancer_was_away_takes_its_connections_along_at_the_next_start() {
    tested(
        "who_died_while_the_balancer_was_away_takes_its_connections_along_at_the_next_start",
        |wires| async move {
            let _instances = Instances::start(&wires, 2);
            let running = balancer().await;
            in_kernel(&wires, &running, routes(2)).await;
            let kept = wires.call(40).await;
            assert!(kept.iter().any(|(who, _)| *who == 0) && kept.iter().any(|(who, _)| *who == 1));
            stop(running).await;
            wires.ip("i", "addr del 10.77.2.3/24 dev wire");
            let running = balancer().await;
            in_kernel(&wires, &running, routes(2).split_off(1)).await;
            for (who, stream) in &kept {
                let alive = tokio::time::timeout(Duration::from_secs(5), still_talks(stream)).await;
                assert_eq!(
                    alive,
                    Ok(*who == 1),
                    "the dead one's clients hear of it, others do not"
                );
            }
            stop(running).await;
        },
    );
}

#[test]
fn a_full_instance_is_left_out_and_a_full_service_holds() {
    tested("a_full_instance_is_left_out_and_a_full_service_holds", |wires| async move {
        let _instances = Instances::start(&wires, 1);
        let running = balancer().await;
        let mut entries = routes(1);
        entries[0].max_in_flight = 5;
        in_kernel(&wires, &running, entries).await;
        let kept = wires.call(5).await;
        until("the rule is gone", || async {
            let table = wires.nft("list table inet tally-b1").unwrap_or_default();
            !table.contains("10.77.2.3")
        })
        .await;
        let calling = tokio::spawn({
            let wires = Arc::clone(&wires);
            async move { wires.call(1).await }
        });
        until("it waits", || async { running.demand("db").await.is_some_and(|d| d.queued == 1) })
            .await;
        drop(kept);
        calling.await.unwrap();
        stop(running).await;
    });
}
