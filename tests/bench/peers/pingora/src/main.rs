//! A minimal proxy on pingora: round robin over fixed upstreams, connections kept on both sides,
//! nothing logged, the client told in the same three headers as everybody else here.
//!
//! `pingora-peer LISTEN THREADS UPSTREAM...`

use std::sync::Arc;

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

/// Connections kept to all upstreams together: more than the generator ever has open.
const KEPT_MAX: usize = 1024;

struct Proxy(LoadBalancer<RoundRobin>);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let backend = self.0.select(b"", 256).ok_or_else(|| Error::explain(
            ErrorType::ConnectNoRoute,
            "no upstream stands",
        ))?;
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|a| a.as_inet()) {
            request.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        request.insert_header("x-forwarded-proto", "http")?;
        if let Some(host) = session.req_header().headers.get("host") {
            request.insert_header("x-forwarded-host", host.clone())?;
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "pingora-peer LISTEN THREADS UPSTREAM...";
    let listen = args.next().ok_or(usage)?;
    let threads: usize = args.next().ok_or(usage)?.parse()?;
    let upstreams: Vec<String> = args.collect();
    let conf = ServerConf {
        threads,
        upstream_keepalive_pool_size: KEPT_MAX,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let balancer = LoadBalancer::<RoundRobin>::try_from_iter(upstreams)?;
    let conf = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&conf, Proxy(balancer));
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
