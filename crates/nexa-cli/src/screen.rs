//! Showing progress on standard error: lines as they come, and on a terminal one moving line for each agent at work.
//!
//! Without a terminal nothing moves and nothing is coloured, so that a log file reads well.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Color;
use crate::progress::{Line, Progress};
use crate::show::words;

/// The most agents with a moving line of their own; more are counted on one.
const BARS_MAX: usize = 12;
/// How often moving lines move.
const TICK: Duration = Duration::from_millis(120);
/// The colours of agents' names, by the name.
const COLORS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// Standard error as a place for progress.
pub struct Screen {
    bars: Option<MultiProgress>,
    by_agent: BTreeMap<String, ProgressBar>,
    colored: bool,
    reach: String,
}

impl Screen {
    /// Standard error, moving and coloured as wished and as it can. `reach` is added to the commands that it suggests.
    pub fn new(color: Color, reach: String) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let wants_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && wants_color,
        };
        let moves = is_terminal && color != Color::Never;
        let bars = moves.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self { bars, by_agent: BTreeMap::new(), colored, reach }
    }

    /// Shows new lines, and what is at work.
    pub fn show(&mut self, lines: &[Line], progress: &Progress) {
        for line in lines {
            match line {
                Line::Text { agent, text } => self.print(&format!("{} │ {text}", self.name(agent))),
                Line::News { agent, text } if agent.is_empty() => self.print(text),
                Line::News { agent, text } => self.print(&format!("{} ▪ {text}", self.name(agent))),
                Line::Question(asked) => {
                    self.print(&format!("? {}", asked.question));
                    if !asked.data_json.is_empty() {
                        self.print(&format!("  about: {}", asked.data_json));
                    }
                    self.print(&format!(
                        "  answer: nexa approve {} [--deny] [--note WORDS]{}",
                        asked.approval_id, self.reach
                    ));
                }
            }
        }
        self.move_bars(progress);
    }

    /// Prints a line above everything that moves.
    pub fn print(&self, text: &str) {
        match &self.bars {
            // The line can fail to appear only if standard error is gone, and then there is nobody to tell.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// Takes away what moves until the next line, so that a person can type.
    pub fn pause(&mut self) {
        for (_, bar) in std::mem::take(&mut self.by_agent) {
            bar.finish_and_clear();
        }
    }

    /// Stops everything that moves.
    pub fn finish(&mut self) {
        self.by_agent.clear();
        if let Some(bars) = self.bars.take() {
            drop(bars.clear());
        }
    }

    fn name(&self, agent: &str) -> String {
        let padded = format!("{agent:>12}");
        if !self.colored {
            return padded;
        }
        let number = agent.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        format!("\x1b[{}m{padded}\x1b[0m", COLORS[number % COLORS.len()])
    }

    fn move_bars(&mut self, progress: &Progress) {
        let Some(bars) = &self.bars else { return };
        let mut at_work: BTreeMap<String, String> = progress.at_work().into_iter().take(BARS_MAX).collect();
        let more = progress.at_work().len().saturating_sub(BARS_MAX);
        if more > 0 {
            at_work.insert("…".to_owned(), format!("and {more} more"));
        }
        self.by_agent.retain(|agent, bar| {
            let stays = at_work.contains_key(agent);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for (agent, text) in at_work {
            let bar = self.by_agent.entry(agent.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(
                    ProgressStyle::with_template("{prefix:>12} {spinner} {wide_msg}")
                        .expect("the template is a constant that parses"),
                );
                bar.set_prefix(agent);
                bar.enable_steady_tick(TICK);
                bar
            });
            bar.set_message(words::shortened(&text));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}
