//! Counting: what passed, what failed, what was skipped and why.

use std::collections::BTreeMap;

/// The line a test prints when it finds at run time that it cannot run: `SKIPPED: test: reason`.
const SKIP_MARK: &str = "SKIPPED: ";

/// The count of a stage, or of all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Score {
    pub passed: usize,
    pub failed: usize,
    /// What was skipped, each with its reason.
    pub skipped: BTreeMap<String, String>,
    /// What failed, by name.
    pub failures: Vec<String>,
}

impl Score {
    /// One thing that passed.
    pub fn pass() -> Score {
        Score { passed: 1, ..Score::default() }
    }

    /// One thing that failed.
    pub fn fail(what: impl Into<String>) -> Score {
        Score { failed: 1, failures: vec![what.into()], ..Score::default() }
    }

    /// One thing that was skipped.
    pub fn skip(what: impl Into<String>, why: impl Into<String>) -> Score {
        Score { skipped: BTreeMap::from([(what.into(), why.into())]), ..Score::default() }
    }

    /// Adds another stage's count.
    pub fn add(&mut self, other: Score) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// The last line of `cargo xtask test`.
    pub fn line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if !self.skipped.is_empty() {
            line.push_str(&format!(", {} skipped", self.skipped.len()));
        }
        line
    }
}

/// Counts what `cargo test -- --show-output` wrote. `ended_ok` is whether it ended with exit code
/// 0: a run that failed without a failed test (it did not compile, a test binary crashed) counts
/// as one failure named `stage`.
pub fn of_cargo_test(stage: &str, output: &str, ended_ok: bool) -> Score {
    let mut score = Score::default();
    let mut binary = String::new();
    let mut returned_early = 0;
    for line in output.lines() {
        let line = line.trim();
        if let Some(running) = line.strip_prefix("Running ") {
            binary = test_binary(running);
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            binary = format!("{name} (doc)");
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            score.passed += number_before(rest, " passed");
            score.failed += number_before(rest, " failed");
        } else if let Some(rest) = line.strip_prefix("test ") {
            of_test_line(rest, &binary, &mut score);
        } else if let Some((name, why)) =
            line.strip_prefix(SKIP_MARK).and_then(|rest| rest.split_once(": "))
        {
            // libtest counted it as passed, since it returned.
            if score.skipped.insert(format!("{binary}: {name}"), why.to_owned()).is_none() {
                returned_early += 1;
            }
        }
    }
    score.passed = score.passed.saturating_sub(returned_early);
    if !ended_ok && score.failed == 0 {
        score.add(Score::fail(format!("{stage} (no test failed, yet the run did: see above)")));
    }
    score
}

fn of_test_line(rest: &str, binary: &str, score: &mut Score) {
    let Some((name, verdict)) = rest.split_once(" ... ") else { return };
    if verdict == "FAILED" {
        score.failures.push(format!("{binary}: {name}"));
    } else if let Some(why) = verdict.strip_prefix("ignored") {
        let why = why.trim_start_matches(',').trim();
        let why = if why.is_empty() { "marked #[ignore] without a reason" } else { why };
        score.skipped.insert(format!("{binary}: {name}"), why.to_owned());
    }
}

/// `unittests src/lib.rs (target/debug/deps/domain-0a1b2c)` gives `domain`.
fn test_binary(running: &str) -> String {
    let file = running.rsplit('/').next().unwrap_or(running).trim_end_matches(')');
    file.rsplit_once('-').map_or(file, |(name, _hash)| name).to_owned()
}

fn number_before(text: &str, word: &str) -> usize {
    let Some(end) = text.find(word) else { return 0 };
    let digits = text[..end].rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
   Compiling domain v0.1.0
     Running unittests src/lib.rs (target/debug/deps/domain-0a1b2c3d)

running 3 tests
test money::tests::adds ... ok
test money::tests::slow ... ignored, needs a night
test money::tests::loses ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/contract.rs (target/debug/deps/contract-ffff)

running 2 tests
test redis_keeps ... ok
test memory_keeps ... ok

successes:

---- redis_keeps stdout ----
SKIPPED: redis_keeps: TALLY_TEST_REDIS_URL is not set

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn passed_failed_ignored_and_skipped_are_told_apart() {
        let score = of_cargo_test("unit", OUTPUT, false);
        assert_eq!(score.line(), "2 passed, 1 failed, 2 skipped");
        assert_eq!(score.failures, ["domain: money::tests::loses"]);
        assert_eq!(score.skipped["domain: money::tests::slow"], "needs a night");
        assert_eq!(score.skipped["contract: redis_keeps"], "TALLY_TEST_REDIS_URL is not set");
    }

    #[test]
    fn a_run_that_did_not_compile_is_one_failure() {
        let score = of_cargo_test("unit", "error[E0308]: mismatched types\n", false);
        assert_eq!(score.line(), "0 passed, 1 failed");
        assert!(score.failures[0].starts_with("unit"));
    }

    #[test]
    fn a_skip_told_twice_counts_once() {
        let output = "SKIPPED: a: no Redis\nSKIPPED: a: no Redis\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored";
        assert_eq!(of_cargo_test("unit", output, true).line(), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn without_skips_the_line_has_two_numbers() {
        let mut score = Score::pass();
        score.add(Score::pass());
        assert_eq!(score.line(), "2 passed, 0 failed");
        score.add(Score::skip("docker", "no daemon"));
        assert_eq!(score.line(), "2 passed, 0 failed, 1 skipped");
    }
}
