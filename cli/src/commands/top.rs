//! `tally top`: services, nodes and money, every second, until Ctrl-C.

use super::shapes::{HELD_BACK, NODE, SERVICE};
use crate::client::{Api, Failure, GlobalArgs, Output};
use crate::show::{self, Form, cell};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Between pictures: loads are reported every second, so quicker shows nothing new.
const PICTURE_EVERY: Duration = Duration::from_secs(1);
/// To the upper left corner, and clear from there.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What `tally top --help` teaches.
pub const HELP: &str = "Watch services, nodes and money, every second, until Ctrl-C. When the \
    output is no terminal, each service is a line per second; with -o json each second is one \
    line of JSON.";

/// `tally top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// End after this many pictures.
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
}

/// Carries it out.
///
/// # Errors
/// When the API cannot be asked the first time; later it may come and go.
pub async fn run(args: &TopArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let api = global.connect()?;
    let live = show::is_terminal() && matches!(global.output(), Output::Table | Output::Wide);
    let mut beat = interval(PICTURE_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0_u32;
    let pictures = async {
        loop {
            beat.tick().await;
            match picture(&api).await {
                Ok(now) if live => show::raw(format!("{CLEAR}{}\n", screen(&now, &api)).as_bytes()),
                Ok(now) => print(&now, global.output())?,
                Err(failure) if shown == 0 => return Err(failure),
                Err(failure) => show::failure(&failure),
            }
            shown = shown.saturating_add(1);
            if args.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = pictures => ended,
        // Without a handler the signal ends the process by itself.
        _signal = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn picture(api: &Api) -> Result<Value, Failure> {
    let (services, nodes, budget) =
        tokio::try_join!(api.list("/v1/services"), api.list("/v1/nodes"), api.get("/v1/budget"),)?;
    Ok(json!({
        "services": services.get("items"),
        "nodes": nodes.get("items"),
        "budget": budget,
    }))
}

fn items<'a>(now: &'a Value, key: &str) -> &'a [Value] {
    now.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn money(now: &Value) -> String {
    let text = |key: &str| cell(now, &format!("/budget/{key}"), Form::Text);
    format!(
        "cap {}  spent {}  promised {}  free {}  forecast {}",
        text("monthly_cap"),
        text("spent"),
        text("obligations"),
        text("free"),
        text("forecast")
    )
}

/// The whole picture for a terminal.
fn screen(now: &Value, api: &Api) -> String {
    let mut parts = vec![format!("{}  (Ctrl-C ends)\n{}", api.url(), money(now))];
    for (key, shape) in [("services", &SERVICE), ("nodes", &NODE)] {
        parts.push(match items(now, key) {
            [] => shape.none.to_owned(),
            some => show::items_table(some, shape.columns, false),
        });
    }
    let held = now.pointer("/budget/held_back").and_then(Value::as_array);
    if let Some(held) = held.filter(|held| !held.is_empty()) {
        parts.push(show::items_table(held, HELD_BACK.columns, true));
    }
    parts.join("\n\n")
}

/// One picture for a file or a pipe.
fn print(now: &Value, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => show::line(&now.to_string()),
        Output::Yaml => show::line(&format!("---\n{}", show::yaml(now)?.trim_end())),
        Output::Name => {
            items(now, "services").iter().for_each(|s| show::line(&cell(s, "/name", Form::Text)));
        }
        Output::Table | Output::Wide => {
            for service in items(now, "services") {
                let text = |pointer: &str| cell(service, pointer, Form::Text);
                show::line(&format!(
                    "service {} desired {} ready {} starting {} load {} held {}",
                    text("/name"),
                    text("/state/desired"),
                    text("/state/ready"),
                    text("/state/starting"),
                    cell(service, "/state/load", Form::Ratio),
                    text("/state/held_requests"),
                ));
            }
            show::line(&format!("nodes {}  {}", items(now, "nodes").len(), money(now)));
        }
    }
    Ok(())
}
