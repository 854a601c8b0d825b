//! `tally instance`: list, look at, stop, read the logs.

use super::WriteArgs;
use super::shapes::INSTANCE;
use crate::client::{Api, Failure, GlobalArgs, Output, Write, encode};
use crate::show;
use bytes::Bytes;
use clap::Subcommand;
use domain::{InstanceId, ServiceName};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

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
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Print what an instance wrote to its standard output and error.
    Logs {
        /// Its id.
        id: InstanceId,
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
                None => everywhere(&api).await?,
            };
            show::list(&body, &INSTANCE, output)
        }
        InstanceCommand::Get { id } => show::object(&api.get(&path(&id)).await?, &INSTANCE, output),
        InstanceCommand::Stop { id, write } => {
            let request =
                Write::new(Method::POST, format!("{}/stop", path(&id)), Some(&Value::Null));
            let body = api.write(Write { body: None, ..request }.dry(write.dry_run)).await?;
            let text = format!("instance/{id} is stopping{}", write.note());
            show::outcome(&body, id.as_str(), &text, output)
        }
        InstanceCommand::Logs { id } => logs(&api, &id, output).await,
    }
}

async fn of_service(api: &Api, service: &str) -> Result<Value, Failure> {
    api.list(&format!("/v1/services/{}/instances", encode(service))).await
}

/// Every instance: the API keeps them by service. A service removed meanwhile has none.
pub async fn everywhere(api: &Api) -> Result<Value, Failure> {
    let services = api.list("/v1/services").await?;
    let names = services.get("items").and_then(Value::as_array).into_iter().flatten();
    let mut all = Vec::new();
    for name in names.filter_map(|s| s.get("name").and_then(Value::as_str)) {
        let path = format!("/v1/services/{}/instances", encode(name));
        if api.find(&path).await?.is_none() {
            continue;
        }
        if let Some(Value::Array(mut items)) =
            of_service(api, name).await?.get_mut("items").map(Value::take)
        {
            all.append(&mut items);
        }
    }
    Ok(json!({ "items": all }))
}

/// Prints logs: text as it is; of a JSON body the text in it.
async fn logs(api: &Api, id: &InstanceId, output: Output) -> Result<(), Failure> {
    let path = format!("{}/logs", path(id));
    let answer = api.call(Method::GET, &path, HeaderMap::new(), Bytes::new()).await?;
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        show::raw(&answer.body);
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&answer.body)
        .map_err(|e| Failure::failed(format!("the logs cannot be read: {e}")))?;
    match output {
        Output::Json => show::line(&show::json(&body)),
        Output::Yaml => show::line(show::yaml(&body)?.trim_end()),
        Output::Table | Output::Wide | Output::Name => {
            lines(&body).iter().for_each(|line| show::line(line));
        }
    }
    Ok(())
}

/// The text of a JSON log: a text, a list of lines, or an object that holds either.
fn lines(body: &Value) -> Vec<String> {
    match body {
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().flat_map(lines).collect(),
        Value::Object(map) => ["items", "lines", "text", "stdout", "stderr", "line"]
            .iter()
            .filter_map(|key| map.get(*key))
            .flat_map(lines)
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}
