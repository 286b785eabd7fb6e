//! One input, computed: a little where the actor runs, the rest where others compute.
//!
//! What is computed elsewhere is the pure step and nothing else; recording and acting stay with the actor. The agent
//! goes there and comes back; if its actor is gone meanwhile, nobody misses it, because its stream has all of it.

use nexa_agent::{Input, Step};
use nexa_types::Timestamp;

use super::{AgentActor, Loaded, hear};
use crate::genai;
use crate::line::Share;
use crate::run_queue::{Dropped, QUICK_FUEL};

/// An agent after a step, the step, and the time that it was taken at.
pub(super) type Stepped = (Box<Loaded>, Step, Timestamp);

impl AgentActor {
    /// Takes a step: at once, and in turn with all others who compute if that does not end it.
    pub(super) async fn compute(&self, loaded: Box<Loaded>, input: Input) -> Result<Stepped, Dropped> {
        let before = loaded.agent.paging();
        let stepped = self.step(loaded, input).await?;
        self.core.counters.count_paging(before, stepped.0.agent.paging());
        Ok(stepped)
    }

    async fn step(&self, mut loaded: Box<Loaded>, input: Input) -> Result<Stepped, Dropped> {
        if matches!(input, Input::Continue) && loaded.more {
            return self.go_on(loaded, None).await;
        }
        let (now, slice_fuel) = (self.core.clock.now(), self.core.slice_fuel());
        let quick = QUICK_FUEL.min(slice_fuel);
        let mut first = genai::step(|| self.decide(&mut loaded, input, now, quick));
        while let Some(entry) = loaded.inbox.pop_front_if(|entry| first.takes_in(&entry.input)) {
            let input = hear(entry, &mut loaded.heard);
            first = first.and(genai::step(|| loaded.agent.step(input, now, quick)));
        }
        if first.more && QUICK_FUEL < slice_fuel && is_undecided(&first) {
            // One record for both, as if the first slice had been longer.
            let (loaded, rest, _) = self.go_on(loaded, Some(now)).await?;
            let wish = loaded.agent.wish(self.core.clock.now());
            return Ok((loaded, Step { wish, ..first.and(rest) }, now));
        }
        Ok((loaded, first, now))
    }

    /// One slice, as of `at` or of the moment that its turn comes.
    async fn go_on(&self, mut loaded: Box<Loaded>, at: Option<Timestamp>) -> Result<Stepped, Dropped> {
        let (clock, fuel) = (self.core.clock.clone(), self.core.slice_fuel());
        let (share, queued) = (self.share(&loaded), clock.now());
        let work = move || {
            let now = at.unwrap_or_else(|| clock.now());
            let step = genai::step(|| loaded.agent.step(Input::Continue, now, fuel));
            let used = fuel - step.fuel_left.min(fuel);
            loaded.computed = loaded.computed.saturating_add(used);
            ((loaded, step, now), used)
        };
        self.core.run_queue.run(share, queued, fuel, work).await
    }

    fn share(&self, loaded: &Loaded) -> Share {
        let share = self.core.share(self.seat.agent, &loaded.tenant, loaded.priority);
        Share { weight: loaded.weight, computed: loaded.computed, ..share }
    }
}

/// Whether nothing follows from a step but that its input was heard.
fn is_undecided(step: &Step) -> bool {
    step.facts.len() <= 1 && step.births.is_empty() && step.posts.is_empty()
}
