//! A network namespace for stories that change the kernel's rules: made here, with loopback up, and
//! gone with its value.

use crate::skipped;
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space,
    remove_capability_from_bounding_set,
};
use std::future::Future;
use std::os::fd::AsFd;
use std::process::Command;

/// Runs a command, its words split at blanks: what it printed, or what it complained.
///
/// # Errors
/// What it complained, or why it could not be run.
pub fn run(words: &str) -> Result<String, String> {
    let mut words = words.split(' ');
    let program = words.next().unwrap_or_default();
    let output =
        Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A namespace that goes with the value.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// `None`, said, where none can be made.
    #[must_use]
    pub fn new(test: &str) -> Option<Namespace> {
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

    /// Plays a story on a thread in the namespace, with all that it starts; not `able`: without the
    /// right to change the network.
    ///
    /// # Panics
    /// When the story does.
    pub fn play<F: Future<Output = ()>>(
        &self,
        able: bool,
        story: impl FnOnce() -> F + Send + 'static,
    ) {
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
