//! `tally report`: one load report by hand, as an instance sends it.

use crate::client::{CALL_DEADLINE, Failure, GlobalArgs};
use crate::show;
use chassis::config;
use chassis::peer::{Client, PeerError, PeerUrl};
use clap::Args;
use domain::{InstanceId, Load, ServiceName};
use serde_json::Value;
use wire::report::Report;

/// Where the load-receiver is when nothing else is said.
const LOAD_URL_DEFAULT: &str = "http://127.0.0.1:7402";

/// What `tally report --help` teaches.
pub const HELP: &str = "Send one load report by hand, as an instance sends it. 1.0 means fully used \
    by the instance's own measure.\n\n\
    Inside an instance, TALLY_LOAD_URL and TALLY_LOAD_TOKEN are set. Without a token only reports \
    from this host are taken.\n\n\
    Example:\n  tally report shop shop-0123456789 0.42 --in-flight 3";

/// `tally report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Of which service.
    pub service: ServiceName,
    /// Of which instance.
    pub instance: InstanceId,
    /// 1.0 = fully used.
    #[arg(value_parser = load, allow_negative_numbers = true)]
    pub load: f64,
    /// Requests in flight there.
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u32>,
    /// Requests a second there.
    #[arg(long, value_name = "N")]
    pub rps: Option<f64>,
    /// Address of the load-receiver [default: TALLY_LOAD_URL, else http://127.0.0.1:7402].
    #[arg(long, value_name = "URL")]
    pub load_url: Option<String>,
    /// The instance's load token [default: TALLY_LOAD_TOKEN].
    #[arg(long, value_name = "TOKEN")]
    pub load_token: Option<String>,
}

fn load(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_nan| "write a number such as 0.42".to_owned())?;
    match Load::from_reported(number) {
        Some(_) => Ok(number),
        None => Err(format!("a load is 0 to {}; 1.0 is fully used", Load::REPORTED_MAX)),
    }
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(args: &ReportArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let url = args.load_url.clone().or_else(|| config::env("TALLY_LOAD_URL"));
    let url = url.unwrap_or_else(|| LOAD_URL_DEFAULT.to_owned());
    // Instances are told the whole path; here its address is enough.
    let peer: PeerUrl =
        url.trim_end_matches('/').trim_end_matches("/v1/load").parse().map_err(Failure::usage)?;
    let token = args.load_token.clone().or_else(|| config::env("TALLY_LOAD_TOKEN"));
    let client = Client::new(peer);
    let client = match token {
        Some(token) => client.with_token(&token),
        None => client,
    };
    let report = Report {
        service: args.service.to_string(),
        instance: args.instance.to_string(),
        load: args.load,
        in_flight: args.in_flight,
        rps: args.rps,
        eps: None,
        seq: None,
        token: None,
        source: None,
    };
    let answer: Value = client.post("/v1/load", &report, CALL_DEADLINE).await.map_err(said)?;
    if let Some(reason) = answer.pointer("/rejected/0/reason").and_then(Value::as_str) {
        return Err(Failure::failed(format!("the report was refused: {reason}")));
    }
    let text = format!("{}: load {:.2} reported", args.instance, args.load);
    show::outcome(&answer, args.instance.as_str(), &text, global.output())
}

/// The receiver's refusals: not a wrong command line, but a report it does not believe.
fn said(error: PeerError) -> Failure {
    match error {
        PeerError::Unreachable { peer, .. } => Failure::Unreachable(format!(
            "no load-receiver answers at {peer}; start it with `tally up`, or say --load-url"
        )),
        PeerError::Refused { body, problem, .. } => {
            let answer: Option<Value> = serde_json::from_slice(&body).ok();
            let reason = answer.as_ref().and_then(|a| a.pointer("/rejected/0/reason"));
            let reason = reason.and_then(Value::as_str).unwrap_or(&problem.detail);
            Failure::failed(format!("the report was refused: {reason}"))
        }
        other @ (PeerError::Deadline { .. } | PeerError::Unreadable { .. }) => other.into(),
    }
}
