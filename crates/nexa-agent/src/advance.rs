//! One decision at a time: runs the brain to its next wish and carries out what a wish means for the log.

use nexa_event::effect::{
    Answer, ApprovalRequest, EffectBody, EffectRequest, Join, ModelRequest, RecallRequest, ToolRequest, fingerprint,
};
use nexa_event::fact::{self, AgentEvent, Intent, TOOL_PREVIEW_BYTES_MAX, WaitOn};
use nexa_types::planted::{Bug, planted};
use nexa_types::{Failure, InputId, Outcome, Payload, RunCode, Seq, Spend, Timestamp, Tokens};
use nexa_vm::vm::Stop;

use crate::agent::Agent;
use crate::brain::Brain;
use crate::children::Used;
use crate::dice::draw;
use crate::ending::fitted;
use crate::invariant;
use crate::ledger::{Kind, Outside, Pending};
use crate::meter::Shortage;
use crate::shortage::{budget_exceeded, time_exceeded};
use crate::step::{Draft, End};

/// An event that does not follow on the agent's state.
#[derive(Debug)]
pub(crate) struct Misfit(pub(crate) &'static str);

impl Agent {
    /// Changes the state by a recorded input. Live and replay meet here, so they cannot differ.
    pub(crate) fn apply(&mut self, event: &AgentEvent, at: Timestamp, draft: &mut Draft) -> Result<(), Misfit> {
        let fits = |fits: bool, why| if fits { Ok(()) } else { Err(Misfit(why)) };
        match event {
            AgentEvent::Started { epoch, .. } => {
                fits(self.life.started.is_none(), "it was started before")?;
                self.life.epoch = self.life.epoch.max(*epoch);
                self.life.started = Some(at);
                self.life.moment = at;
                self.life.computing = true;
                self.life.quarantined = false;
            }
            AgentEvent::TakenOver { epoch, carried, .. } => {
                fits(
                    self.life.started.is_some() && *epoch >= self.life.epoch,
                    "it was not started, or under a later epoch",
                )?;
                if !planted(Bug::EpochNotRaised) {
                    self.life.epoch = *epoch;
                }
                self.life.quarantined = false;
                if carried.is_none() {
                    self.take_over_pending(at, draft);
                }
            }
            AgentEvent::EffectEnded { seq, result, spend } => {
                fits(self.end_effect(*seq, result, spend, at), "no such effect is started")?;
            }
            AgentEvent::ChildEnded { seq, branch, outcome, spend, handed_over } => {
                let used = Used { spend, handed_over: handed_over.as_ref() };
                let known = self.end_child(*seq, *branch, outcome, used, at, draft);
                fits(known, "there is no such child, or it had ended")?;
                self.settle(at, draft);
            }
            AgentEvent::TimerFired { seq } => {
                let answer = match &self.life.pending {
                    Some(Pending::Timer { seq: waiting, .. }) if waiting == seq => Ok(Answer::Done),
                    Some(Pending::Message { seq: waiting, due: Some(_) }) if waiting == seq => {
                        Err(Failure::new(RunCode::Timeout, "no message came in time"))
                    }
                    _ => return Err(Misfit("no such timer is set")),
                };
                self.resume(*seq, answer, at);
            }
            AgentEvent::MessageReceived { value, number, .. } => {
                let is_next = number.is_none_or(|number| number == self.life.mailbox.received() + 1);
                fits(is_next, "a message of its parent is missing")?;
                self.take_in(value, *number, at, draft);
            }
            AgentEvent::CreditReceived { seq, branch, taken } => {
                fits(self.credit(*seq, *branch, *taken, at, draft), "there is no such child that runs")?;
            }
            AgentEvent::CancelReceived { .. } if planted(Bug::CancelIgnored) => {}
            AgentEvent::CancelReceived { reason } => {
                self.stop(Failure::new(RunCode::Cancelled, reason.clone()), at, draft);
            }
            AgentEvent::ScopeExpired { seq } => {
                fits(self.expire(*seq, at, draft), "no such scope is open, or it does not wait")?;
            }
            AgentEvent::Adopted { depth, branches, .. } => {
                fits(self.is_root(), "only the root of a workload takes branches over")?;
                self.adopt(*depth, branches.clone(), at, draft);
            }
            AgentEvent::DeadlinePassed if self.life.concluded.is_some() => self.end_detached(draft),
            AgentEvent::DeadlinePassed if self.is_stopping() => self.cut_short(draft),
            AgentEvent::DeadlinePassed => {
                let failure = match self.limit() {
                    Some((_, RunCode::BudgetExceeded)) => time_exceeded(self.id()),
                    _ => Failure::new(RunCode::Timeout, "the deadline passed before the agent ended"),
                };
                self.stop(failure, at, draft);
            }
            AgentEvent::Quarantined { .. } => self.life.quarantined = true,
            AgentEvent::Spawned(_) => return Err(Misfit("an agent is born once, with the first event of its stream")),
            AgentEvent::EffectIntended { .. }
            | AgentEvent::EffectStarted { .. }
            | AgentEvent::ChildrenSpawned { .. }
            | AgentEvent::TimerSet { .. }
            | AgentEvent::Emitted { .. }
            | AgentEvent::MemoryStored { .. }
            | AgentEvent::ChildrenCancelled { .. }
            | AgentEvent::WaitBegan { .. }
            | AgentEvent::MessageSent { .. }
            | AgentEvent::MailTaken { .. }
            | AgentEvent::EffectLost { .. }
            | AgentEvent::Interrupted { .. }
            | AgentEvent::Detached { .. }
            | AgentEvent::Concluded { .. }
            | AgentEvent::DetachedFailed { .. }
            | AgentEvent::Ended { .. } => return Err(Misfit("it is no input")),
        }
        Ok(())
    }

    /// Runs the brain to its next wish or its end. False if the fuel was used up first.
    pub(crate) fn advance(&mut self, fuel: u64, draft: &mut Draft) -> bool {
        match self.brain.run(fuel) {
            Stop::Effect(request) => self.carry_out(request, draft),
            Stop::Ended(outcome) => self.ended_by_itself(outcome, draft),
            Stop::OutOfFuel => return false,
        }
        true
    }

    /// Does what the brain wants, or waits until it can be done.
    pub(crate) fn carry_out(&mut self, request: EffectRequest, draft: &mut Draft) {
        let EffectRequest { seq, body } = request;
        if self.is_stopped_at(seq, draft) {
            return;
        }
        if self.waits_for_budget(seq, &body) {
            return self.begin_wait(seq, WaitOn::Budget, None, Pending::Budget { seq }, draft);
        }
        let moment = self.life.moment;
        match body {
            EffectBody::Now => self.resume(seq, Ok(Answer::Now(moment)), moment),
            EffectBody::Random { low, high } => {
                let number = self.random(seq, low, high);
                self.resume(seq, Ok(Answer::Random(number)), moment);
            }
            EffectBody::Log(line) => {
                draft.bytes += line.len();
                draft.logs.push(line);
                self.resume(seq, Ok(Answer::Done), moment);
            }
            EffectBody::Emit { channel, value } => {
                draft.bytes += channel.len() + value.len();
                draft.facts.push(AgentEvent::Emitted { seq, channel, value });
                self.resume(seq, Ok(Answer::Done), moment);
            }
            EffectBody::Sleep(span) => {
                let due = moment.after(span);
                draft.facts.push(AgentEvent::TimerSet { seq, due });
                self.wait(Pending::Timer { seq, due }, draft);
            }
            EffectBody::Deadline(span) => {
                // Time that people took before does not count for it, and what they take from now on is added.
                let due = Timestamp(moment.after(span).0.saturating_sub(self.life.waited.0));
                self.resume(seq, Ok(Answer::Now(due)), moment);
            }
            EffectBody::Timer(span) => self.set_timer(seq, span),
            EffectBody::Await(handle) => self.await_handle(seq, handle, draft),
            EffectBody::Receive { timeout } => self.receive(seq, timeout, draft),
            EffectBody::Send { to, value } => self.pass(seq, to, value, draft),
            EffectBody::Cancel(handle) => self.cancel_handle(seq, handle, draft),
            EffectBody::Release(from) => self.release(seq, from, draft),
            EffectBody::Children { branches, join: Join::Detached } => self.detach(seq, branches, draft),
            EffectBody::Children { branches, join } => self.spawn(seq, branches, join, draft),
            EffectBody::Model(request) => self.intend_model(seq, request, draft),
            EffectBody::Approval(request) => self.intend_approval(seq, request, draft),
            EffectBody::Tool(request) => self.intend_tool(seq, request, draft),
            EffectBody::Test(_) => self.wait(Pending::Test { seq }, draft),
            EffectBody::Remember(entry) => {
                draft.bytes += entry.key.len() + entry.value.as_ref().map_or(0, Payload::len);
                draft.facts.push(AgentEvent::MemoryStored { seq, entry });
                self.resume(seq, Ok(Answer::Done), moment);
            }
            EffectBody::Recall(request) => self.intend_recall(seq, request, draft),
        }
    }

    fn intend_model(&mut self, seq: Seq, mut request: Box<ModelRequest>, draft: &mut Draft) {
        let unread = self.join_turns(&mut request);
        let (heard, said) = (self.life.heard.clone(), self.life.said);
        let conversation = self.converse(&mut request);
        let reserved = self.worst_case(&request);
        if let Err(shortage) = self.life.meter.reserve(&reserved) {
            // It was not heard by anybody.
            (self.life.heard, self.life.said) = (heard, said);
            return self.is_short_at(seq, &shortage, draft);
        }
        draft.bytes += conversation.iter().flat_map(|of| &of.heard).map(|heard| heard.text.len()).sum::<usize>();
        self.take_turns(seq, unread, draft);
        let sources = request.messages.iter().map(|message| message.source).collect();
        let intent = Intent::Model { model: request.model.clone(), sources, reserved, conversation };
        let fingerprint = fingerprint(&EffectBody::Model(request));
        draft.facts.push(AgentEvent::EffectIntended { seq, intent, fingerprint });
        let outside = Outside {
            seq,
            kind: Kind::Model,
            reserved,
            attempt: 0,
            started: None,
            since: self.life.moment,
            expires: None,
        };
        self.wait(Pending::Outside(outside), draft);
    }

    /// A call of a tool waits for a sending slot, as a model request does; it uses nothing that a budget counts.
    fn intend_tool(&mut self, seq: Seq, request: Box<ToolRequest>, draft: &mut Draft) {
        let preview = request.args[..request.args.floor_char_boundary(TOOL_PREVIEW_BYTES_MAX)].to_owned();
        let intent = Intent::Tool {
            tool: request.tool.clone(),
            source: request.source.to_string(),
            preview,
            risk: request.risk,
            effect: request.effect,
            key: request.key.clone(),
        };
        let fingerprint = fingerprint(&EffectBody::Tool(request));
        draft.facts.push(AgentEvent::EffectIntended { seq, intent, fingerprint });
        let outside = Outside {
            seq,
            kind: Kind::Tool,
            reserved: Spend::default(),
            attempt: 0,
            started: None,
            since: self.life.moment,
            expires: None,
        };
        self.wait(Pending::Outside(outside), draft);
    }

    /// A request does not fit the budget.
    fn is_short_at(&mut self, seq: Seq, shortage: &Shortage, draft: &mut Draft) {
        let (failure, moment) = (budget_exceeded(self.id(), shortage), self.life.moment);
        if self.cleans_up() {
            return self.resume(seq, Err(failure), moment);
        }
        self.record_stop(seq, failure.code, draft);
        self.interrupt(failure, moment, draft);
    }

    /// What a request may use, and so holds: its worst case if that fits, and otherwise all that is left, if at least the least
    /// is. To insist on the worst case would refuse requests that fit, near the end of a budget; to hold the least alone
    /// would promise the same tokens twice. What was held too much comes back with the answer; what was held too little
    /// is an overrun by a part of one input, after which nothing more is sent.
    pub(crate) fn worst_case(&self, request: &ModelRequest) -> Spend {
        let tokens_out = request.sampling.max_tokens;
        let InputTokens { least, worst } = InputTokens::of(request);
        let tokens_in = match self.life.meter.rest().tokens {
            Some(rest) => worst.min(rest.0.saturating_sub(tokens_out.0)).max(least),
            None => worst,
        };
        Spend { tokens_in: Tokens(tokens_in), tokens_out, calls: 1, ..Spend::default() }
    }

    /// A question needs no sending slot: it is asked by being in the log.
    fn intend_approval(&mut self, seq: Seq, request: ApprovalRequest, draft: &mut Draft) {
        let since = self.life.moment;
        let expires = request.timeout.map(|timeout| since.after(timeout));
        let fingerprint = fingerprint(&EffectBody::Approval(request.clone()));
        draft.facts.push(AgentEvent::EffectIntended { seq, intent: Intent::Approval(request), fingerprint });
        let (kind, reserved) = (Kind::Approval, Spend::default());
        let outside = Outside { seq, kind, reserved, attempt: 0, started: None, since, expires };
        self.wait(Pending::Outside(outside), draft);
        draft.facts.extend(self.ticket(seq));
    }

    /// A look into a memory needs no sending slot: whoever holds the agent looks.
    fn intend_recall(&mut self, seq: Seq, request: RecallRequest, draft: &mut Draft) {
        let fingerprint = fingerprint(&EffectBody::Recall(request.clone()));
        draft.facts.push(AgentEvent::EffectIntended { seq, intent: Intent::Recall(request), fingerprint });
        let (kind, reserved, since) = (Kind::Memory, Spend::default(), self.life.moment);
        self.wait(
            Pending::Outside(Outside { seq, kind, reserved, attempt: 0, started: None, since, expires: None }),
            draft,
        );
        draft.facts.extend(self.ticket(seq));
    }

    /// It goes no further before an input. Every such place stands in the log.
    pub(crate) fn wait(&mut self, pending: Pending, draft: &mut Draft) {
        self.life.pending = Some(pending);
        self.life.computing = false;
        self.tell_what_was_read(draft);
    }

    /// Hands the brain its answer; it computes from here as of `at`.
    pub(crate) fn resume(&mut self, seq: Seq, answer: Result<Answer, Failure>, at: Timestamp) {
        self.life.pending = None;
        self.life.moment = at;
        self.brain.resume(seq, answer);
        self.life.computing = self.brain.has_work();
    }

    /// Tells a brain that went on meanwhile how a child ended.
    pub(crate) fn child_news(&mut self, seq: Seq, branch: u32, outcome: &Outcome, at: Timestamp) {
        if let Brain::List(list) = &mut self.brain {
            list.child_ended(seq, branch, outcome);
            self.life.moment = at;
            self.life.computing = list.has_work();
        }
    }

    /// From `low` to `high - 1`; `low` if that is nothing.
    fn random(&self, seq: Seq, low: i64, high: i64) -> i64 {
        let draw = draw("nexa.v1 random", self.spawned().seed, &seq.0.to_le_bytes());
        let span = (i128::from(high) - i128::from(low)).max(1) as u128;
        // The product's upper half is even over the span up to a bias of span / 2⁶⁴.
        let offset = (u128::from(draw) * span) >> 64;
        (i128::from(low) + offset as i128) as i64
    }

    /// Ends the agent. The rest of its brain is dropped: what ends it from outside cannot be caught inside, so the end
    /// depends on no instruction that was reached, and a replay finds the same one.
    pub(crate) fn finish(&mut self, outcome: Outcome, draft: &mut Draft) {
        if !invariant!(AG4, self.life.end.is_none()) {
            return;
        }
        let outcome = fitted(outcome);
        self.give_up_pending(draft);
        self.leave_children(draft);
        let spend = self.life.meter.spent();
        if let Some(parent) = self.spawned().parent {
            let (seq, branch, outcome) = (parent.seq, parent.branch, outcome.clone());
            let handed_over = self.life.meter.handed_over();
            let input = fact::Input::ChildEnded { seq, branch, outcome, spend, handed_over };
            draft.posts.push((parent.agent, InputId::child_ended(self.id()), input));
        }
        draft.facts.push(AgentEvent::Ended { outcome: outcome.clone(), spend });
        self.life.computing = false;
        self.life.concluded = None;
        self.life.end = Some(End { outcome, spend });
        self.brain = Brain::Gone;
    }
}

/// How many tokens the input of a request is. No tokenizer is known here, and which one counts depends on the model.
struct InputTokens {
    /// Four bytes a token, as plain text usually has.
    least: u64,
    /// A token a byte, as the rarest writing has, and what stands around each message and tool.
    worst: u64,
}

impl InputTokens {
    /// What a provider may add around one message or tool, in tokens.
    const FRAME: u64 = 8;

    fn of(request: &ModelRequest) -> Self {
        let calls = request.messages.iter().flat_map(|message| &message.tool_calls);
        let bytes = request.messages.iter().map(|message| message.text.len()).sum::<usize>()
            + calls.clone().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
            + request
                .tools
                .iter()
                .map(|tool| tool.name.len() + tool.description.len() + tool.schema.len())
                .sum::<usize>()
            + request.schema.as_ref().map_or(0, String::len);
        let framed = request.messages.len() + calls.count() + request.tools.len();
        Self { least: bytes.div_ceil(4) as u64, worst: bytes as u64 + Self::FRAME * framed as u64 }
    }
}
