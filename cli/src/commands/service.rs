//! `tally service`: list, look at, hold at a number, wake, restart, remove, its history.

use super::WriteArgs;
use super::shapes::{SERVICE, SERVICE_STAT};
use super::since::SinceArgs;
use crate::client::{Api, Expect, Failure, GlobalArgs, Write, encode};
use crate::show;
use clap::Subcommand;
use domain::ServiceName;
use http::Method;
use serde_json::{Value, json};
use std::str::FromStr;

/// A number to hold a service at, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold(Option<u32>);

impl FromStr for Hold {
    type Err = String;
    fn from_str(text: &str) -> Result<Hold, String> {
        match text {
            "auto" => Ok(Hold(None)),
            number => number
                .parse()
                .map(|n| Hold(Some(n)))
                .map_err(|_nan| "write a number of instances, or auto".to_owned()),
        }
    }
}

/// `tally service`.
#[derive(Debug, Clone, Subcommand)]
pub enum ServiceCommand {
    /// List services with where they stand.
    #[command(visible_alias = "list")]
    Ls,
    /// Show one service.
    Get {
        /// Its name.
        name: ServiceName,
    },
    /// Remove a service: its instances finish what they have, then stop.
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name.
        name: ServiceName,
        /// Only if it is at this generation.
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Hold a service at a number of instances, within its minimum and maximum, until `auto`.
    #[command(
        long_about = "Hold a service at a number of instances until `auto` lets load decide \
        again. The number stays within the declared minimum and maximum.\n\n\
        Examples:\n  tally service scale shop 3\n  tally service scale shop auto"
    )]
    Scale {
        /// Its name.
        name: ServiceName,
        /// How many instances, or `auto`.
        #[arg(value_name = "N|auto")]
        instances: Hold,
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Start a first instance now, as a request would.
    Wake {
        /// Its name.
        name: ServiceName,
    },
    /// Replace every instance, as a new revision would, without losing requests.
    Restart {
        /// Its name.
        name: ServiceName,
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show the history of load and counts.
    #[command(long_about = "Show the history of load and counts.\n\n\
        Example:\n  tally service load shop --since 1h")]
    Load {
        /// Its name.
        name: ServiceName,
        /// Which part.
        #[command(flatten)]
        since: SinceArgs,
    },
}

fn path(name: &ServiceName) -> String {
    format!("/v1/services/{}", encode(name.as_str()))
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: ServiceCommand, global: &GlobalArgs) -> Result<(), Failure> {
    let (api, output) = (global.connect()?, global.output());
    match command {
        ServiceCommand::Ls => show::list(&api.list("/v1/services").await?, &SERVICE, output),
        ServiceCommand::Get { name } => {
            show::object(&api.get(&path(&name)).await?, &SERVICE, output)
        }
        ServiceCommand::Rm { name, if_version, write } => {
            let request = Write::new(Method::DELETE, path(&name), None)
                .dry(write.dry_run)
                .expecting(Expect::of(if_version));
            let body = api.write(request).await?;
            let text =
                format!("service/{name} is being removed; its instances drain{}", write.note());
            show::outcome(&body, name.as_str(), &text, output)
        }
        ServiceCommand::Scale { name, instances, write } => {
            let body = json!({ "instances": instances.0 });
            let answer = act(&api, &name, "scale", &body, write).await?;
            let text = match instances.0 {
                Some(n) => format!("service/{name} is held at {n} until `auto`{}", write.note()),
                None => format!("service/{name} follows its load again{}", write.note()),
            };
            show::outcome(&answer, name.as_str(), &text, output)
        }
        ServiceCommand::Wake { name } => {
            let answer = act(&api, &name, "wake", &json!({}), WriteArgs::default()).await?;
            let text = format!("service/{name} is woken");
            show::outcome(&answer, name.as_str(), &text, output)
        }
        ServiceCommand::Restart { name, write } => {
            let answer = act(&api, &name, "restart", &json!({}), write).await?;
            let text = format!("service/{name} gets new instances{}", write.note());
            show::outcome(&answer, name.as_str(), &text, output)
        }
        ServiceCommand::Load { name, since } => {
            let history = api.list(&format!("{}/load{}", path(&name), since.query()?)).await?;
            show::list(&history, &SERVICE_STAT, output)
        }
    }
}

async fn act(
    api: &Api,
    name: &ServiceName,
    verb: &str,
    body: &Value,
    write: WriteArgs,
) -> Result<Value, Failure> {
    let path = format!("{}/{verb}", path(name));
    api.write(Write::new(Method::POST, path, Some(body)).dry(write.dry_run)).await
}
