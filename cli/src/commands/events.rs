//! `tally events`: what happened, and with `--follow` what happens.

use crate::client::{Api, CALL_DEADLINE, Failure, GlobalArgs, Output};
use crate::show;
use chassis::peer::PeerError;
use clap::Args;
use domain::Clock;
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;
use wire::operator::EventView;

/// The stream first sends what it still has; this long without an event means: that was all.
const QUIET: Duration = Duration::from_millis(500);
/// Before a broken stream is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest line kept: an event is a few hundred bytes.
const LINE_BYTES_MAX: usize = 256 << 10;

/// What `tally events --help` teaches.
pub const HELP: &str = "Show events: every decision, state change and refusal, oldest first.\n\n\
    Examples:\n  \
      tally events                    what the API still remembers\n  \
      tally events --follow           and then what happens, until Ctrl-C\n  \
      tally events --follow -o json   one JSON object a line";

/// `tally events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Go on until Ctrl-C; a broken stream is opened again where it broke.
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub after: u64,
}

/// Carries it out.
///
/// # Errors
/// When the stream cannot be opened the first time.
pub async fn run(args: &EventsArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let api = global.connect()?;
    tokio::select! {
        ended = follow(&api, args, global.output()) => ended,
        _signal = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(api: &Api, args: &EventsArgs, output: Output) -> Result<(), Failure> {
    let (mut after, mut opened) = (args.after, false);
    loop {
        match stream(api, &mut after, &mut opened, args.follow, output).await {
            Ok(()) if !args.follow => return Ok(()),
            Ok(()) => show::note("the stream of events ended; opening it again"),
            Err(failure) if !opened || !matches!(failure, Failure::Unreachable(_)) => {
                return Err(failure);
            }
            Err(failure) => show::failure(&failure),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Reads one stream to its end; `after` is the last event seen.
async fn stream(
    api: &Api,
    after: &mut u64,
    opened: &mut bool,
    follow: bool,
    output: Output,
) -> Result<(), Failure> {
    let mut headers = http::HeaderMap::new();
    headers.insert("last-event-id", http::HeaderValue::from(*after));
    let response = api.client().stream_with("/v1/events", headers, CALL_DEADLINE).await?;
    *opened = true;
    // What happens after this is no history, however busy the stream.
    let started = chassis::clock::SystemClock::new().now();
    let mut bytes = response.bytes_stream();
    let mut lines = Lines::default();
    loop {
        let chunk = if follow {
            bytes.next().await
        } else {
            match timeout(QUIET, bytes.next()).await {
                Ok(chunk) => chunk,
                Err(_quiet) => return Ok(()),
            }
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let chunk = chunk
            .map_err(|source| Failure::from(PeerError::Unreachable { peer: api.url(), source }))?;
        lines.push(&chunk)?;
        while let Some(line) = lines.next() {
            let Some(data) = line.strip_prefix("data:") else { continue };
            let Ok(event) = serde_json::from_str::<EventView>(data.trim()) else {
                show::note(&format!("an event that cannot be read: {}", show::printable(data)));
                continue;
            };
            if !follow && event.at.0 > started {
                return Ok(());
            }
            *after = event.seq.max(*after);
            print(&event, data.trim(), output)?;
        }
    }
}

fn print(event: &EventView, data: &str, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => show::line(data),
        Output::Yaml => {
            let value = serde_json::from_str(data)
                .map_err(|e| Failure::failed(format!("an event cannot be read: {e}")))?;
            show::line(&format!("---\n{}", show::yaml(&value)?.trim_end()));
        }
        Output::Name => show::line(&event.seq.to_string()),
        Output::Table | Output::Wide => {
            let values = if output == Output::Wide { event.values.as_str() } else { "" };
            let text = format!(
                "{}  {:8} {}  {}: {} {values}",
                wire::stamp::show(event.at.0),
                event.kind,
                event.subject,
                event.what,
                event.detail
            );
            show::line(show::printable(&text).trim_end());
        }
    }
    Ok(())
}

/// Lines out of chunks that end anywhere.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<u8>,
    whole: VecDeque<String>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        for part in chunk.split_inclusive(|b| *b == b'\n') {
            if self.open.len() + part.len() > LINE_BYTES_MAX {
                return Err(Failure::failed("an event is too long; is this the API of Tally?"));
            }
            self.open.extend_from_slice(part);
            if self.open.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.open);
                self.whole.push_back(line.trim_end_matches(['\r', '\n']).to_owned());
                self.open.clear();
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = "id: 1\r\nevent: scale\ndata: {\"a\": \"\u{e4}\"}\n\n";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            for chunk in text.as_bytes().chunks(cut) {
                lines.push(chunk).unwrap();
            }
            let all: Vec<String> = std::iter::from_fn(|| lines.next()).collect();
            assert_eq!(all, ["id: 1", "event: scale", "data: {\"a\": \"\u{e4}\"}", ""]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; LINE_BYTES_MAX];
        lines.push(&chunk).unwrap();
        assert!(lines.push(b"x").is_err());
    }
}
