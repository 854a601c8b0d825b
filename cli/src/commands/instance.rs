//! `tally instance`: list, look at, stop, read the logs.

use super::shapes::INSTANCE;
use crate::client::{Api, Failure, GlobalArgs, Output, Write, encode};
use crate::show;
use clap::Subcommand;
use domain::{InstanceId, ServiceName};
use http::Method;
use serde_json::Value;

/// `tally instance`.
#[derive(Debug, Clone, Subcommand)]
pub enum InstanceCommand {
    /// List instances, of all services or of one.
    #[command(visible_aliases = ["list", "ps"])]
    Ls {
        /// Of this service alone.
        #[arg(short, long, value_name = "NAME")]
        service: Option<ServiceName>,
    },
    /// Show one instance.
    Get {
        /// Its id.
        id: InstanceId,
    },
    /// Stop one instance: it finishes what it has; the service replaces it if it needs to.
    Stop {
        /// Its id.
        id: InstanceId,
    },
    /// Print what an instance wrote to its standard output and error.
    Logs {
        /// Its id.
        id: InstanceId,
        /// How many lines at most, from the end.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
        lines: u32,
    },
}

fn path(id: &InstanceId) -> String {
    format!("/v1/instances/{}", encode(id.as_str()))
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: InstanceCommand, global: &GlobalArgs) -> Result<(), Failure> {
    let (api, output) = (global.connect()?, global.output());
    match command {
        InstanceCommand::Ls { service } => {
            let body = match service {
                Some(name) => of_service(&api, name.as_str()).await?,
                None => api.list("/v1/instances").await?,
            };
            show::list(&body, &INSTANCE, output)
        }
        InstanceCommand::Get { id } => show::object(&api.get(&path(&id)).await?, &INSTANCE, output),
        InstanceCommand::Stop { id } => {
            let request = Write::new(Method::POST, format!("{}/stop", path(&id)), None);
            let body = api.write(request).await?;
            show::outcome(&body, id.as_str(), &format!("instance/{id} is stopping"), output)
        }
        InstanceCommand::Logs { id, lines } => logs(&api, &id, lines, output).await,
    }
}

async fn of_service(api: &Api, service: &str) -> Result<Value, Failure> {
    api.list(&format!("/v1/services/{}/instances", encode(service))).await
}

/// Prints the end of what an instance wrote.
async fn logs(api: &Api, id: &InstanceId, lines: u32, output: Output) -> Result<(), Failure> {
    let body = api.get(&format!("{}/logs?lines={lines}", path(id))).await?;
    match output {
        Output::Json => show::line(&show::json(&body)),
        Output::Yaml => show::line(show::yaml(&body)?.trim_end()),
        Output::Table | Output::Wide | Output::Name => {
            let lines = body.get("lines").and_then(Value::as_array);
            // As it was written, colours included: a log is data.
            lines.into_iter().flatten().filter_map(Value::as_str).for_each(show::line);
        }
    }
    Ok(())
}
