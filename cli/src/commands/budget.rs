//! `tally budget`: what is spent, promised and free; setting the cap.

use super::WriteArgs;
use super::shapes::{BUDGET, HELD_BACK};
use crate::client::{Expect, Failure, GlobalArgs, Output, Write};
use crate::show;
use clap::{Args, Subcommand};
use domain::{Budget, Share};
use http::Method;
use serde_json::Value;
use wire::manifest::BudgetManifest;
use wire::quantity::Q;

/// `tally budget`.
#[derive(Debug, Clone, Subcommand)]
pub enum BudgetCommand {
    /// Show cap, spend, obligations, what is free, and what the cap holds back.
    Get,
    /// Set the monthly cap, the reserve, the pacing; what is not said stays as it is.
    #[command(long_about = "Set the monthly cap, the reserve, the pacing; what is not said stays \
        as it is. A lower cap drains the nodes whose loss disturbs least; spent plus obligations \
        never exceed the cap by Tally's doing.\n\n\
        Examples:\n  \
          tally budget set --monthly-cap \"120 EUR\"\n  \
          tally budget set --monthly-cap none\n  \
          tally budget set --reserve 5% --pacing strict")]
    Set(SetArgs),
}

/// `tally budget set`.
#[derive(Debug, Clone, Args)]
#[group(multiple = true)]
pub struct SetArgs {
    /// What may be spent in a calendar month (UTC), such as "120 EUR"; or none.
    #[arg(long, value_name = "AMOUNT", required_unless_present_any = ["reserve", "pacing"])]
    pub monthly_cap: Option<String>,
    /// Share of the cap that stays free [default at first: 3%].
    #[arg(long, value_name = "SHARE")]
    pub reserve: Option<Share>,
    /// Whether what is left is spread over the days left.
    #[arg(long, value_parser = ["off", "strict"])]
    pub pacing: Option<String>,
    /// Even below what protected nodes and minimum instances are promised to cost.
    #[arg(long)]
    pub force: bool,
    /// As every write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: BudgetCommand, global: &GlobalArgs) -> Result<(), Failure> {
    match command {
        BudgetCommand::Get => {
            let budget = global.connect()?.get("/v1/budget").await?;
            show::object(&budget, &BUDGET, global.output())?;
            if matches!(global.output(), Output::Table | Output::Wide)
                && let Some(held) = budget.get("held_back").and_then(Value::as_array)
                && !held.is_empty()
            {
                show::line("");
                show::line(&show::items_table(held, HELD_BACK.columns, true));
            }
            Ok(())
        }
        BudgetCommand::Set(args) => set(&args, global).await,
    }
}

async fn set(args: &SetArgs, global: &GlobalArgs) -> Result<(), Failure> {
    // A wrong amount is said before anything is asked.
    if let Some(cap) = &args.monthly_cap {
        check(&manifest(cap.clone(), args.reserve, args.pacing.clone()))?;
    }
    let api = global.connect()?;
    let now = api.get("/v1/budget").await?;
    let text = |key: &str| now.get(key).and_then(Value::as_str).map(str::to_owned);
    let cap = args.monthly_cap.clone().or_else(|| text("monthly_cap").filter(|cap| cap != "unset"));
    let cap = cap.ok_or_else(|| {
        Failure::usage("no cap is set yet; say --monthly-cap \"120 EUR\", or --monthly-cap none")
    })?;
    let reserve = args.reserve.or_else(|| text("reserve").and_then(|share| share.parse().ok()));
    let wanted = manifest(cap, reserve, args.pacing.clone().or_else(|| text("pacing")));
    check(&wanted)?;
    let body = wire::manifest::Manifest::Budget(wanted).to_value();
    // The kept parts were read at this generation: a change in between is a conflict.
    let version = now.get("generation").and_then(Value::as_u64).filter(|n| *n > 0);
    let expect = version.map_or(Expect::Any, Expect::Version);
    let request = Write::new(Method::PUT, "/v1/budget", Some(&body)).forced(args.force);
    let answer = api.write(request.dry(args.write.dry_run).expecting(expect)).await?;
    let shown = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let sentence = format!(
        "the monthly cap is {}: {} spent, {} promised, {} free{}",
        shown("monthly_cap"),
        shown("spent"),
        shown("obligations"),
        shown("free"),
        args.write.note()
    );
    show::outcome(&answer, &shown("monthly_cap"), &sentence, global.output())
}

fn manifest(cap: String, reserve: Option<Share>, pacing: Option<String>) -> BudgetManifest {
    BudgetManifest {
        kind: Some("budget".to_owned()),
        monthly_cap: cap,
        reserve: reserve.map(Q),
        pacing,
    }
}

fn check(manifest: &BudgetManifest) -> Result<(), Failure> {
    Budget::try_from(manifest).map(|_checked| ()).map_err(|e| Failure::usage(e.to_string()))
}
