//! Prints the bars of results that were written before: `bars FILE...`.
#![expect(clippy::print_stdout, reason = "the bars are this program's output")]

use anyhow::{Context, Result};

fn main() -> Result<()> {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        for bar in bench::bars::of_result(&text).with_context(|| path.clone())? {
            println!("{}", bar.line());
        }
    }
    Ok(())
}
