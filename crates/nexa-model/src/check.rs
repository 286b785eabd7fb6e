//! Goes through all states of a model, and says what was found.

use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// How long a check may take. What happens at a limit: the report says that not all was seen.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Threads that look for states.
    pub threads: usize,
    /// After so long it is given up.
    pub within: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Self { threads: 1, within: Duration::from_secs(600) }
    }
}

/// What was found of a property.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Which.
    pub name: &'static str,
    /// Whether it must hold in all states, or in one at least.
    pub is_always: bool,
    /// Whether it does, as far as was looked.
    pub holds: bool,
    /// What leads to a state in which it does not hold that always must; the shortest way if one thread looked.
    pub counterexample: Vec<String>,
}

/// What came of a check.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which protocol.
    pub model: &'static str,
    /// States, each once.
    pub states: usize,
    /// Ways from one to the next.
    pub transitions: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every state was seen.
    pub is_exhausted: bool,
    /// By the order in which the model names them.
    pub properties: Vec<Checked>,
}

impl Report {
    /// Whether every state was seen and every property holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.is_exhausted && self.properties.iter().all(|property| property.holds)
    }

    /// The properties that do not hold in all states although they must.
    pub fn broken(&self) -> impl Iterator<Item = &Checked> {
        self.properties.iter().filter(|property| property.is_always && !property.holds)
    }

    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let property = |checked: &Checked| {
            serde_json::json!({
                "name": checked.name,
                "kind": if checked.is_always { "always" } else { "sometimes" },
                "holds": checked.holds,
                "counterexample": checked.counterexample,
            })
        };
        serde_json::json!({
            "model": self.model,
            "states": self.states,
            "transitions": self.transitions,
            "depth": self.depth,
            "seconds": self.took.as_secs_f64(),
            "exhausted": self.is_exhausted,
            "holds": self.holds(),
            "properties": self.properties.iter().map(property).collect::<Vec<_>>(),
        })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, states, transitions, depth, took, is_exhausted, properties } = self;
        let all = if *is_exhausted { "all" } else { "NOT all" };
        writeln!(
            out,
            "{model}: {all} of {states} states, {transitions} steps, depth {depth}, {:.1} s",
            took.as_secs_f64()
        )?;
        for Checked { name, is_always, holds, counterexample } in properties {
            let says = match (is_always, holds) {
                (true, true) => "always",
                (true, false) => "BROKEN",
                (false, true) => "reached",
                (false, false) => "NEVER REACHED",
            };
            writeln!(out, "  {says:<14} {name}")?;
            for action in counterexample {
                writeln!(out, "                   {action}")?;
            }
        }
        Ok(())
    }
}

/// Looks at every state of a model, or until a property is found broken.
pub fn check<M>(name: &'static str, model: M, effort: Effort) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Clone + PartialEq + Hash + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let begun = Instant::now();
    let builder = model.checker().threads(effort.threads).timeout(effort.within);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let properties: Vec<Checked> = (checker.model().properties().into_iter())
        .map(|property| {
            let is_always = property.expectation != Expectation::Sometimes;
            let found = discoveries.remove(property.name);
            let holds = found.is_none() == is_always;
            let way = found.filter(|_| is_always).map(|path| path.into_actions()).unwrap_or_default();
            let counterexample = way.iter().map(|action| checker.model().format_action(action)).collect();
            Checked { name: property.name, is_always, holds, counterexample }
        })
        .collect();
    let is_broken = properties.iter().any(|property| property.is_always && !property.holds);
    Report {
        model: name,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        is_exhausted: !is_broken && begun.elapsed() < effort.within,
        properties,
    }
}
