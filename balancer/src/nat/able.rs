//! Whether this host lets this process do mode `nat`, and what is lacking.

use super::nft::{self, NftError};
use super::rules::{Front, Target, Wanted};
use domain::ServiceName;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The bit of CAP_NET_ADMIN in a set of capabilities.
const CAP_NET_ADMIN: u32 = 12;

/// What is lacking and what to do about it; `None`: nothing.
pub async fn lacks() -> Option<String> {
    if !has_net_admin() {
        return Some(
            "the balancer lacks CAP_NET_ADMIN; run it as root or give it the capability (systemd: \
             AmbientCapabilities=CAP_NET_ADMIN, Docker: --cap-add NET_ADMIN --network host)"
                .to_owned(),
        );
    }
    let trial = trial()?;
    match nft::check(&trial.transaction(&[])).await {
        Ok(()) => None,
        Err(NftError::Missing) => {
            Some("the balancer's host has no nftables; install the package nftables".to_owned())
        }
        Err(error) => Some(format!(
            "the kernel of the balancer's host does not take NAT rules ({}); it needs nf_tables \
             with nat, masquerade, numgen and fib",
            chassis::telemetry::Chain(&error)
        )),
    }
}

/// Everything a real table uses, under a name nobody has; only ever checked.
fn trial() -> Option<Wanted> {
    let service: ServiceName = "trial".parse().ok()?;
    let at = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 1));
    let targets = vec![Target { address: at(1), slots: 1 }, Target { address: at(2), slots: 3 }];
    Some(Wanted {
        table: "tally-trial".to_owned(),
        listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        fronts: vec![Front { service, port: 1, targets }],
    })
}

fn has_net_admin() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    set & (1 << CAP_NET_ADMIN) != 0
}
