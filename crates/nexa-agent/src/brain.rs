//! What decides for an agent: a VM, or the coordinator of a list. Both are step machines with the same four ways out.

use nexa_event::effect::{Answer, EffectRequest};
use nexa_event::fact;
use nexa_types::{Failure, Outcome, RunCode, Seq};
use nexa_vm::codec;
use nexa_vm::value::Value;
use nexa_vm::vm::{Limits, Stop, Vm};
use std::sync::Arc;

use crate::coordinator::Coordinator;
use crate::invariant;

/// What decides for an agent.
#[derive(Debug)]
pub(crate) enum Brain {
    /// A program.
    Vm(Box<Vm>),
    /// A submitted list.
    List(Box<Coordinator>),
    /// Could not begin, or cannot go on; ends with this as soon as it runs.
    Broken(Failure),
    /// The agent has ended.
    Gone,
}

impl Brain {
    /// The brain of a new agent. What is wrong with its program or arguments becomes its end and not an error: an
    /// agent that exists must be able to end.
    pub(crate) fn new(program: &fact::Program, module: Arc<nexa_vm::vm::Program>) -> Self {
        match program {
            fact::Program::Function { entry, args, .. } => {
                let args = match codec::decode(args) {
                    Ok(Value::List(args)) => args.to_vec(),
                    Ok(_) => return Self::Broken(unusable("its arguments are no list")),
                    Err(error) => return Self::Broken(unusable(error)),
                };
                let limits = Limits { heap: module.module().heap_limit(*entry, &args) };
                match Vm::start(module, *entry, args, limits) {
                    Ok(vm) => Self::Vm(Box::new(vm)),
                    Err(error) => Self::Broken(unusable(error)),
                }
            }
            fact::Program::List { items, on_failure, turns, .. } => {
                match Coordinator::new(items.clone(), *on_failure, turns.as_deref()) {
                    Ok(list) => Self::List(Box::new(list)),
                    Err(error) => Self::Broken(unusable(error)),
                }
            }
        }
    }

    /// What the last computation left of its fuel when it came to a wish.
    pub(crate) fn fuel_left(&self) -> u64 {
        match self {
            Self::Vm(vm) => vm.fuel_left(),
            Self::List(_) => u64::MAX,
            Self::Broken(_) | Self::Gone => 0,
        }
    }

    /// Computes until it wants something, has used its fuel, or has ended.
    pub(crate) fn run(&mut self, fuel: u64) -> Stop {
        match self {
            Self::Vm(vm) => vm.run(fuel),
            Self::List(list) => list.run(),
            Self::Broken(failure) => Stop::Ended(Outcome::Err(failure.clone())),
            Self::Gone => Stop::OutOfFuel,
        }
    }

    /// Answers the request that it waits for.
    pub(crate) fn resume(&mut self, seq: Seq, answer: Result<Answer, Failure>) {
        let refused = match self {
            Self::Vm(vm) => vm.resume(seq, answer).err().map(|error| error.to_string()),
            Self::List(list) => {
                list.resume(answer);
                None
            }
            Self::Broken(_) | Self::Gone => None,
        };
        invariant!(AG5, refused.is_none());
        if let Some(detail) = refused {
            *self = Self::Broken(unusable(detail));
        }
    }

    /// Whether it would do anything if it ran now, provided it waits for no answer.
    pub(crate) fn has_work(&self) -> bool {
        match self {
            Self::Vm(_) | Self::Broken(_) => true,
            Self::List(list) => list.has_work(),
            Self::Gone => false,
        }
    }

    /// Whether messages mean anything to it.
    pub(crate) fn reads_mail(&self) -> bool {
        matches!(self, Self::Vm(_))
    }

    /// The number of its next effect, if it may have one.
    pub(crate) fn next(&self) -> Option<Seq> {
        match self {
            Self::Vm(vm) => Some(vm.next_seq()),
            Self::List(list) => Some(list.next()),
            Self::Broken(_) | Self::Gone => None,
        }
    }

    /// The request that it waits for.
    pub(crate) fn pending(&self) -> Option<EffectRequest> {
        match self {
            Self::Vm(vm) => vm.pending(),
            Self::List(_) | Self::Broken(_) | Self::Gone => None,
        }
    }

    /// Into how many parts the rest of the budget goes when this many children start now. A list keeps parts back for
    /// those that are still to come, or the first ones would take all.
    pub(crate) fn shares(&self, starting: usize) -> u64 {
        let later = match self {
            Self::List(list) => list.waiting_count(),
            Self::Vm(_) | Self::Broken(_) | Self::Gone => 0,
        };
        (starting + later) as u64
    }
}

fn unusable(detail: impl std::fmt::Display) -> Failure {
    Failure::new(RunCode::Failed, format!("the agent cannot run: {detail}"))
}
