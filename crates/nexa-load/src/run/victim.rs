//! Which node is killed.

use super::{Load, Settings};
use crate::LoadError;
use crate::crew::Crew;
use crate::dice::Dice;
use crate::observe;

/// What the dice are rolled for.
const VICTIM: u64 = 31;

/// Which of several nodes is killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Victim {
    /// One by chance, each as likely as the others.
    #[default]
    Any,
    /// Whoever leads then.
    Leader,
}

/// One by chance, the same for the same seed.
pub(super) fn by_chance(settings: &Settings, crew: &Crew) -> usize {
    let seed = settings.plan.profile.seed;
    Dice::of(&[seed, VICTIM]).roll() as usize % crew.started().max(1)
}

impl Load {
    /// Who is to be killed now; `None` if that is the leader, and nobody leads at the moment.
    pub(super) async fn point_out(&self, crew: &Crew) -> Result<Option<usize>, LoadError> {
        match self.settings.victim {
            Victim::Any => Ok(Some(by_chance(&self.settings, crew))),
            Victim::Leader => Ok(observe::leader(&self.clients[0]).await?.and_then(|name| crew.which(&name))),
        }
    }
}
