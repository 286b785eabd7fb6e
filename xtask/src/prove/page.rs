//! What came of the lanes, as a page for people and as one JSON object.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use super::{Ended, Result, Tier};
use crate::process::root;

fn name_of(tier: Tier) -> &'static str {
    match tier {
        Tier::Short => "short",
        Tier::Full => "full",
        Tier::Nightly => "nightly",
    }
}

fn option_of(tier: Tier) -> &'static str {
    match tier {
        Tier::Short => " --short",
        Tier::Full => "",
        Tier::Nightly => " --nightly",
    }
}

/// A result in a few words.
pub(super) fn said(result: &Result) -> String {
    match result {
        Result::Passed => "passed".to_owned(),
        Result::Failed(why) => format!("FAILED: {why}"),
        Result::Skipped(why) => format!("SKIPPED: {why}"),
    }
}

/// The page, as Markdown.
pub(super) fn page(ended: &[Ended], tier: Tier, took: Duration) -> String {
    let mut text = String::from("# What was proved\n\n");
    let _ = writeln!(text, "    cargo xtask prove{}\n", option_of(tier));
    let _ =
        writeln!(text, "Of commit {}, on {}; {} s together, builds included.\n", commit(), machine(), took.as_secs());
    text.push_str("| lane | result | took, s | of at most, s |\n|---|---|---|---|\n");
    for Ended { lane, result, took, budget, .. } in ended {
        let (said, took) = (said(result).replace('|', "\\|"), took.as_secs_f64());
        let _ = writeln!(text, "| {} | {said} | {took:.0} | {} |", lane.name, budget.as_secs());
    }
    for Ended { lane, command, lines, figures, .. } in ended {
        let _ = writeln!(text, "\n## {}\n\nShows: {}.\n\n    {command}\n", lane.name, lane.shows);
        if !lines.is_empty() {
            let _ = writeln!(text, "```text\n{}\n```", lines.join("\n"));
        }
        if let Some(figures) = figures {
            let _ = writeln!(text, "\n```json\n{figures}\n```");
        }
    }
    text
}

/// The same as one JSON object, in one line.
pub(super) fn json(ended: &[Ended], tier: Tier, took: Duration) -> String {
    let lane = |ended: &Ended| {
        let (result, why) = match &ended.result {
            Result::Passed => ("passed", ""),
            Result::Failed(why) => ("failed", why.as_str()),
            Result::Skipped(why) => ("skipped", why.as_str()),
        };
        format!(
            r#"{{"name":{},"result":"{result}","why":{},"took_s":{:.1},"budget_s":{},"figures":{}}}"#,
            quoted(ended.lane.name),
            quoted(why),
            ended.took.as_secs_f64(),
            ended.budget.as_secs(),
            ended.figures.as_deref().unwrap_or("null")
        )
    };
    let lanes: Vec<String> = ended.iter().map(lane).collect();
    let all_passed = ended.iter().all(|ended| matches!(ended.result, Result::Passed));
    format!(
        r#"{{"tier":"{}","commit":{},"machine":{},"took_s":{:.1},"all_passed":{all_passed},"lanes":[{}]}}"#,
        name_of(tier),
        quoted(&commit()),
        quoted(&machine()),
        took.as_secs_f64(),
        lanes.join(",")
    )
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// What git calls what is proved.
fn commit() -> String {
    let out = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    let named =
        out.ok().filter(|out| out.status.success()).map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({}), kernel {}", model.unwrap_or("unknown").trim(), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::super::LANES;
    use super::*;

    fn ended(result: Result, figures: Option<&str>) -> Ended {
        Ended {
            lane: &LANES[0],
            result,
            took: Duration::from_secs(7),
            budget: Duration::from_secs(9),
            command: "nexa-sim".to_owned(),
            lines: vec!["seeds 3".to_owned()],
            figures: figures.map(str::to_owned),
        }
    }

    #[test]
    fn a_lane_that_was_skipped_is_not_shown_as_passed() {
        let all = [ended(Result::Passed, Some("{}")), ended(Result::Skipped("no \"netns\"".to_owned()), None)];
        let json = json(&all, Tier::Short, Duration::from_secs(16));
        assert!(json.contains(r#""all_passed":false"#), "{json}");
        assert!(json.contains(r#""result":"skipped","why":"no \"netns\"","took_s":7.0,"budget_s":9,"figures":null"#));
        let page = page(&all, Tier::Short, Duration::from_secs(16));
        assert!(page.contains("| passed | 7 | 9 |") && page.contains("| SKIPPED: no \"netns\" |"), "{page}");
    }

    #[test]
    fn strings_are_quoted_as_json_wants_it() {
        assert_eq!(quoted("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }
}
