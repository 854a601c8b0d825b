//! `tally apply`: manifests become declarations, in an order in which each finds what it needs, and
//! the command waits until the services stand.

use super::{WriteArgs, wait};
use crate::client::{Api, Expect, Failure, GlobalArgs, Output, Write, encode};
use crate::show;
use clap::Args;
use http::Method;
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use wire::manifest::{Format, MANIFEST_BYTES_MAX, Manifest, parse_text};
use wire::quantity::Span;

/// What `tally apply --help` teaches.
pub const HELP: &str = "Declare services, node types and the budget, and wait until they stand.\n\n\
    A file may hold several manifests (YAML documents divided by ---, a JSON array, or \
    [[manifest]] tables in TOML). Node types and the budget are declared before services. The \
    command waits until each service has its minimum of instances ready; a service with \
    min_instances 0 is started by its first request, so there is nothing to wait for.\n\n\
    Examples:\n  \
      tally apply -f shop.yaml\n  \
      tally apply -f shop.yaml --dry-run        check it on the server, change nothing\n  \
      tally apply -f shop.yaml --if-version 3   only if nobody changed it since version 3\n  \
      cat shop.yaml | tally apply -f - --timeout 5m\n\n\
    Exit codes: 0 done, 2 a manifest is wrong, 3 accepted but not ready in time, 4 another \
    version, 5 the API does not answer.";

/// `tally apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// File of manifests (.yaml, .toml, .json), or - for the standard input; may be repeated.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub file: Vec<String>,
    /// As every write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Only if the object is at this generation; 0: only if it does not exist.
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Do not wait for instances.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub timeout: Span,
}

/// One manifest as it goes to the API.
#[derive(Debug)]
pub struct Declared {
    kind: &'static str,
    name: String,
    path: String,
    body: Value,
    /// Its minimum, for services.
    min: u64,
}

impl Declared {
    fn of(manifest: &Manifest) -> Declared {
        let body = manifest.to_value();
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, path, min) = match manifest {
            Manifest::Service(m) => {
                ("service", format!("/v1/services/{}", encode(&name)), u64::from(m.min_instances))
            }
            Manifest::NodeType(_) => ("node-type", format!("/v1/node-types/{}", encode(&name)), 0),
            Manifest::Budget(_) => ("budget", "/v1/budget".to_owned(), 0),
        };
        Declared { kind, name, path, body, min }
    }

    /// `service/shop`, `budget`.
    fn label(&self) -> String {
        if self.name.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}/{}", self.kind, self.name)
        }
    }
}

/// Types and money first: a service's minimum is admitted against them.
fn rank(manifest: &Manifest) -> u8 {
    match manifest {
        Manifest::NodeType(_) => 0,
        Manifest::Budget(_) => 1,
        Manifest::Service(_) => 2,
    }
}

/// Reads files of manifests, checks each and puts them in the order of applying.
///
/// # Errors
/// `Usage`: the file, the document, a JSON pointer and what would be right.
pub fn read(files: &[String]) -> Result<Vec<Manifest>, Failure> {
    let mut manifests = Vec::new();
    for file in files {
        let text = read_text(file)?;
        let shown = if file == "-" { "standard input" } else { file };
        let wrong = |e: wire::manifest::ManifestError| {
            // `document 2: /load/up: ...`; a fault of the whole file has no pointer to show.
            let text = e.to_string();
            Failure::usage(format!("{shown}: {}", text.trim_start_matches(": ")))
        };
        let parsed = parse_text(&text, Format::of_file(file)).map_err(wrong)?;
        let several = parsed.len() > 1;
        for (i, manifest) in parsed.into_iter().enumerate() {
            manifest.check().map_err(|mut e| {
                e.document = several.then_some(i + 1);
                wrong(e)
            })?;
            manifests.push(manifest);
        }
    }
    manifests.sort_by_key(rank);
    Ok(manifests)
}

fn read_text(file: &str) -> Result<String, Failure> {
    let unreadable = |e: std::io::Error| Failure::usage(format!("{file} cannot be read: {e}"));
    let limit = u64::try_from(MANIFEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let open = std::fs::File::open(Path::new(file)).map_err(unreadable)?;
        open.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() > MANIFEST_BYTES_MAX {
        let text =
            format!("{file}: a file of manifests may have {MANIFEST_BYTES_MAX} bytes at most");
        return Err(Failure::usage(text));
    }
    String::from_utf8(bytes).map_err(|_bytes| Failure::usage(format!("{file} is not UTF-8 text")))
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(args: &ApplyArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let manifests = read(&args.file)?;
    if args.if_version.is_some() && manifests.len() != 1 {
        return Err(Failure::usage("--if-version needs exactly one manifest"));
    }
    let api = global.connect()?;
    let declared: Vec<Declared> = manifests.iter().map(Declared::of).collect();
    if !args.no_wait {
        answering(&api).await;
    }
    let mut answers = Vec::new();
    for one in &declared {
        let answer =
            put(&api, one, args, global.output()).await.map_err(|e| at(one, &declared, e))?;
        answers.push(answer);
    }
    match global.output() {
        Output::Json => show::line(&show::json(&together(&answers))),
        Output::Yaml => show::line(show::yaml(&together(&answers))?.trim_end()),
        Output::Table | Output::Wide | Output::Name => {}
    }
    if args.write.dry_run || args.no_wait {
        return Ok(());
    }
    for (one, answer) in declared.iter().zip(&answers).filter(|(one, _)| one.min > 0) {
        let revision = answer.get("revision").and_then(Value::as_u64).unwrap_or(0);
        wait::service(&api, &one.name, one.min, revision, args.timeout.0).await?;
        show::note(&format!("{} is ready", one.label()));
    }
    Ok(())
}

/// A Tally started a moment ago answers within this; one that does not is not running.
const STARTING_MAX: Duration = Duration::from_secs(10);
/// Between two attempts.
const STARTING_LOOK: Duration = Duration::from_millis(50);

/// Waits for a Tally that has just been started, so that `tally up &` and `tally apply` may stand
/// one after the other in a script. What is wrong otherwise is said by the first write.
async fn answering(api: &Api) {
    let deadline = tokio::time::Instant::now() + STARTING_MAX;
    let mut told = false;
    // The budget is answered by the machine-manager through the container-manager: both are there.
    while let Err(Failure::Unreachable(why)) = api.find("/v1/budget").await {
        if tokio::time::Instant::now() >= deadline {
            return;
        }
        if !told {
            show::note(&format!("waiting for the API: {why}"));
            told = true;
        }
        tokio::time::sleep(STARTING_LOOK).await;
    }
}

/// Names the manifest in a failure, and what was applied before it.
fn at(one: &Declared, all: &[Declared], failure: Failure) -> Failure {
    let before: Vec<String> =
        all.iter().take_while(|other| other.path != one.path).map(Declared::label).collect();
    let after = match before.is_empty() {
        true => String::new(),
        false => format!(" (applied before it: {})", before.join(", ")),
    };
    let say = |text: String| format!("{}: {text}{after}", one.label());
    match failure {
        Failure::Failed(text) => Failure::Failed(say(text)),
        Failure::Usage(text) => Failure::Usage(say(text)),
        Failure::Conflict(text) => Failure::Conflict(say(text)),
        other @ (Failure::Unsatisfied(_) | Failure::Unreachable(_)) => other,
    }
}

/// One answer as it came; several as a list.
fn together(answers: &[Value]) -> Value {
    match answers {
        [one] => one.clone(),
        several => serde_json::json!({ "items": several }),
    }
}

async fn put(
    api: &Api,
    one: &Declared,
    args: &ApplyArgs,
    output: Output,
) -> Result<Value, Failure> {
    let generation = |body: &Value| body.get("generation").and_then(Value::as_u64);
    let before = api.find(&one.path).await?.as_ref().and_then(generation);
    let write = Write::new(Method::PUT, &one.path, Some(&one.body))
        .dry(args.write.dry_run)
        .expecting(Expect::of(args.if_version));
    let answer = api.write(write).await?;
    let after = generation(&answer);
    // The budget exists from the start, as generation 0.
    let verb = match (before.filter(|n| *n > 0), after) {
        (None, _) => "created",
        (Some(b), Some(a)) if a == b => "unchanged",
        (Some(_), _) => "changed",
    };
    let version = after.map(|n| format!(" (version {n})")).unwrap_or_default();
    match output {
        Output::Table | Output::Wide => {
            show::line(&format!("{} {verb}{version}{}", one.label(), args.write.note()));
        }
        Output::Name => show::line(&one.label()),
        Output::Json | Output::Yaml => {}
    }
    Ok(answer)
}
