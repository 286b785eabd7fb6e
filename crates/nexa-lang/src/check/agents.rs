//! Agents: their properties, and the texts that a model is given.
//!
//! Every property has a meaning in this release, or is refused by name; none is read and dropped.

use std::collections::BTreeMap;
use std::rc::Rc;

use nexa_event::effect::ToolChoice;

use super::Checker;
use super::constants::Setting;
use super::places::Place;
use super::scope::{Frame, FrameKind};
use crate::ast::{self, AstNode, Signature as _};
use crate::diagnostic::Code;
use crate::hir::{self, At, Const, ExprKind};
use crate::source::Span;
use crate::types::{Fit, Ty};
use nexa_types::Millis;
use nexa_types::limits::HEAP_BYTES_MAX;
use nexa_vm::module::Schedule;

/// Properties that work.
const PROPERTIES: &[&str] = &[
    "role",
    "skills",
    "prompt",
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "stop",
    "budget",
    "schedule",
    "timeout",
    "retry",
    "repair",
    "stream",
    "planner",
    "fallback",
    "cache",
    "memory",
    "max_tool_calls",
    "tool_choice",
    "validate",
];
/// Properties of the language that this release does not have.
const LATER: &[&str] = &["context"];

/// The defaults that the language gives.
const TIMEOUT_MS: u64 = 60_000;
const RETRY_MAX: i64 = 2;
const BACKOFF_MS: u64 = 500;
const FACTOR: f64 = 2.0;
const REPAIR: u32 = 2;
const TOOL_CALLS: u32 = 16;

/// Bounds of settings, so that no agent retries for ever.
const RETRIES_ALLOWED_MAX: i64 = 16;
const REPAIRS_ALLOWED_MAX: i64 = 16;
const TOKENS_ALLOWED_MAX: i64 = 1_000_000;
const WAIT_ALLOWED_MAX_MS: u64 = 30 * 24 * 3_600_000;
const MODELS_ALLOWED_MAX: usize = 16;
const STOPS_ALLOWED_MAX: usize = 16;
const TOOL_CALLS_ALLOWED_MAX: i64 = 1_000;
/// The most that one agent may count beside others.
pub(super) const WEIGHT_MAX: f64 = 1e9;
const CORES_MAX: f64 = 1024.0;
const SLOTS_MAX: i64 = 1024;
/// Less would not hold an agent's own messages.
const HEAP_BYTES_MIN: i64 = 64 << 10;

/// An agent of which only the name is known.
pub(super) fn empty(name: &str, at: At) -> hir::Agent {
    hir::Agent {
        name: name.to_owned(),
        doc: String::new(),
        params: Vec::new(),
        result: Ty::Str,
        role: None,
        skills: Vec::new(),
        prompt: None,
        models: vec![String::new()],
        sampling: hir::Sampling::default(),
        budget: nexa_types::Budget::default(),
        timeout: TIMEOUT_MS,
        backoff: waits(RETRY_MAX, BACKOFF_MS, FACTOR),
        repair: REPAIR,
        asks_conditions: false,
        stream: false,
        cache: false,
        memory: None,
        requires: Vec::new(),
        ensures: Vec::new(),
        contract_locals: 0,
        is_told: false,
        clone_of: None,
        fallback: None,
        best_of: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        max_tool_calls: TOOL_CALLS,
        max_steps: None,
        schedule: Schedule::default(),
        at,
    }
}

/// The wait before each further try: `backoff · factorⁿ`.
pub(crate) fn waits(max: i64, backoff: u64, factor: f64) -> Vec<u64> {
    let wait = |nth: i64| (backoff as f64 * factor.powi(nth as i32)).min(WAIT_ALLOWED_MAX_MS as f64) as u64;
    (0..max.clamp(0, RETRIES_ALLOWED_MAX)).map(wait).collect()
}

/// What is wrong with a model's name, if anything.
pub(crate) fn model_name_fault(name: &str) -> Option<&'static str> {
    let Some((provider, model)) = name.split_once('/') else { return Some("it has no `/`") };
    if provider.is_empty() || model.is_empty() {
        Some("a part of it is empty")
    } else if name.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        Some("it has blanks in it")
    } else {
        None
    }
}

impl Checker<'_> {
    pub(super) fn check_agent(&mut self, number: usize) {
        let signature = Rc::clone(&self.agents[number].signature);
        let decl = self.agents[number].decl.clone();
        self.file = signature.file;
        let mut agent = empty(&signature.name, self.at_span(signature.span));
        agent.doc = decl.docs().unwrap_or_default();
        agent.params = signature.params.iter().map(|param| (param.name.to_string(), param.ty.clone())).collect();
        agent.result = signature.result.as_ref().map_or(Ty::Str, |(ty, _)| ty.clone());
        let result_span = signature.result.as_ref().map_or(signature.span, |(_, span)| *span);
        agent.tools = self.offers(&decl.grants());
        self.check_wire_types(&agent, &signature, result_span);
        self.check_implemented(&decl.implemented(), &agent.result, result_span);
        let mut given: BTreeMap<String, Span> = BTreeMap::new();
        for property in decl.properties() {
            let (Some(name), Some(value)) = (property.name(), property.value()) else { continue };
            let text = name.text();
            if let Some(first) = given.get(&text) {
                let twice = self
                    .finding(Code::E0402, name.span(), format!("`{text}` is given twice"))
                    .label(*first, "it is given here first");
                self.report(twice);
                continue;
            }
            given.insert(text.clone(), name.span());
            self.property(&mut agent, &signature, &text, name.span(), &value);
        }
        let contracts = self.contracts(&decl.requires(), &decl.ensures(), &signature, &agent.result, FrameKind::Flow);
        (agent.requires, agent.ensures) = (contracts.requires, contracts.ensures);
        agent.contract_locals = contracts.locals;
        self.agents[number].checked = agent;
        self.own_fallback(number);
        self.add_run(number);
    }

    /// What goes to a model and comes from it must have a JSON form.
    fn check_wire_types(&mut self, agent: &hir::Agent, signature: &super::declarations::Signature, result: Span) {
        let params = signature.params.iter().map(|param| (param.ty.clone(), param.span, false));
        for (ty, span, is_asked) in params.chain([(agent.result.clone(), result, true)]).collect::<Vec<_>>() {
            if let Some(culprit) = self.types.not_for_models(&ty, is_asked) {
                if culprit == Ty::Secret && !is_asked {
                    let message = format!("what `{}` takes is part of its prompt, and a secret is in it", agent.name);
                    let leak = self.finding(Code::E0802, span, message);
                    self.report(leak.help("hand it to a tool that the agent may call; a model must not see it"));
                    continue;
                }
                let verb = if is_asked { "gives" } else { "takes" };
                let message = format!("`{}` {verb} `{}`, which a model cannot", agent.name, self.show(&ty));
                let cannot = self
                    .finding(Code::E0416, span, message)
                    .note(format!("`{}` has no JSON form", self.show(&culprit)))
                    .help("use texts, numbers, bools, lists, dicts with `str` keys, and protocols of these");
                self.report(cannot);
            }
        }
    }

    /// `implements P` of an agent or a flow: its result has the fields of `P`.
    pub(super) fn check_implemented(&mut self, promised: &[ast::TypeExpr], result: &Ty, span: Span) {
        for written in promised {
            let wanted = self.ty(written);
            if wanted.is_silent() || result.is_silent() || self.types.fit(result, &wanted) == Fit::Same {
                continue;
            }
            let message = format!("the result `{}` is no `{}`", self.show(result), self.show(&wanted));
            let mut lacks = self.finding(Code::E0407, span, message).label(written.span(), "this is promised here");
            if let (Some(wanted), Some(given)) = (self.types.fields(&wanted), self.types.fields(result)) {
                let missing = wanted.iter().filter(|want| given.iter().all(|field| field.name != want.name));
                let missing: Vec<&str> = missing.map(|field| &*field.name).collect();
                if !missing.is_empty() {
                    lacks = lacks.help(format!("add {} to `{}`", super::listed(missing), self.show(result)));
                }
            }
            self.report(lacks);
        }
    }

    pub(super) fn property(
        &mut self,
        agent: &mut hir::Agent,
        signature: &super::declarations::Signature,
        name: &str,
        span: Span,
        value: &ast::Expr,
    ) {
        let sampling = &mut agent.sampling;
        match name {
            "role" => agent.role = self.agent_text(signature, name, value),
            "skills" => agent.skills = self.skills(value),
            "prompt" => agent.prompt = self.agent_text(signature, name, value),
            "model" => agent.models = self.models(value),
            "temperature" => {
                sampling.temperature = self.float_setting(value, name, 0.0..=2.0).unwrap_or(sampling.temperature)
            }
            "top_p" => sampling.top_p = self.float_setting(value, name, 0.0..=1.0).unwrap_or(sampling.top_p),
            "max_tokens" => {
                let tokens = self.int_setting(value, name, 1..=TOKENS_ALLOWED_MAX);
                sampling.max_tokens = tokens.map_or(sampling.max_tokens, i64::unsigned_abs);
            }
            "seed" => sampling.seed = self.int_setting(value, name, 0..=i64::MAX).map(i64::unsigned_abs),
            "stop" => sampling.stop = self.texts(value, name, STOPS_ALLOWED_MAX),
            "budget" => agent.budget = self.budget(value),
            "timeout" => {
                agent.timeout = self.duration_setting(value, name, 1..=WAIT_ALLOWED_MAX_MS).unwrap_or(agent.timeout);
            }
            "retry" => agent.backoff = self.retry(value),
            "repair" => {
                let turns = self.int_setting(value, name, 0..=REPAIRS_ALLOWED_MAX);
                agent.repair = turns.map_or(agent.repair, |turns| turns as u32);
            }
            "stream" => agent.stream = self.bool_setting(value, name).unwrap_or(false),
            "cache" => self.cache(agent, value),
            "memory" => agent.memory = Some(self.memory(value)),
            "schedule" => agent.schedule = self.schedule(value),
            "fallback" => agent.fallback = self.fallback(value),
            "planner" => self.planner(agent, signature, value),
            "max_tool_calls" => {
                let calls = self.int_setting(value, name, 0..=TOOL_CALLS_ALLOWED_MAX);
                agent.max_tool_calls = calls.map_or(agent.max_tool_calls, |calls| calls as u32);
            }
            "tool_choice" => self.tool_choice(agent, value),
            "validate" => self.validate(agent, value),
            _ if LATER.contains(&name) => self.report_not_available(span, &format!("the property `{name}`")),
            _ => {
                let unknown = self.finding(Code::E0401, span, format!("an agent has no property `{name}`"));
                let unknown = self.suggest(unknown, name, PROPERTIES.iter().chain(LATER).copied());
                self.report(unknown.note(format!("an agent has {}", super::listed(PROPERTIES.iter().copied()))));
            }
        }
    }

    /// `role` or `prompt`: a text that may speak of the parameters.
    fn agent_text(
        &mut self,
        signature: &super::declarations::Signature,
        name: &str,
        value: &ast::Expr,
    ) -> Option<hir::Expr> {
        let around = std::mem::take(&mut self.frames);
        self.frames.push(Frame::new(signature.name.to_string(), FrameKind::Flow, None));
        for param in &signature.params {
            self.bind_param(&param.name, param.span, param.ty.clone());
        }
        self.in_agent_text = true;
        let text = self.expect(value, &Ty::Str, Place::Property(name));
        self.in_agent_text = false;
        self.frames = around;
        (text.ty == Ty::Str).then_some(text)
    }

    fn models(&mut self, value: &ast::Expr) -> Vec<String> {
        let names = match value {
            ast::Expr::ListExpr(_) => self.texts(value, "model", MODELS_ALLOWED_MAX),
            _ => self.text_setting(value, "model").into_iter().collect(),
        };
        // Every element of a right list is a text, so names and elements are of one number.
        let spans: Vec<Span> = match value {
            ast::Expr::ListExpr(list) => list.items().map(|item| item.span()).collect(),
            _ => vec![value.span()],
        };
        for (place, name) in names.iter().enumerate() {
            if let Some(fault) = model_name_fault(name) {
                let span = spans.get(place).copied().unwrap_or_else(|| value.span());
                let bad = self
                    .finding(Code::E0405, span, format!("`{name}` is no model's name: {fault}"))
                    .help("write `provider/name`, such as \"local/small\"");
                self.report(bad);
            }
        }
        if names.is_empty() {
            if let ast::Expr::ListExpr(list) = value
                && list.items().next().is_none()
            {
                self.out_of_range(value.span(), "model", "an empty list", "one name or a list of names");
            }
            return vec![String::new()];
        }
        names
    }

    pub(super) fn texts(&mut self, value: &ast::Expr, name: &str, most: usize) -> Vec<String> {
        let made = self.constant(value, &Ty::list(Ty::Str), Place::Property(name));
        let ExprKind::List(items) = made.kind else { return Vec::new() };
        if items.len() > most {
            self.out_of_range(
                value.span(),
                name,
                &format!("a list of {}", items.len()),
                &format!("a list of at most {most}"),
            );
        }
        let text = |item: hir::Expr| match item.kind {
            ExprKind::Const(Const::Str(text)) => Some(text.to_string()),
            _ => None,
        };
        items.into_iter().take(most).filter_map(text).collect()
    }

    pub(super) fn retry(&mut self, value: &ast::Expr) -> Vec<u64> {
        let (mut max, mut backoff, mut factor) = (RETRY_MAX, BACKOFF_MS, FACTOR);
        for Setting { name, value, .. } in self.settings(value, "retry", &["max", "backoff", "factor"]) {
            match name.as_str() {
                "max" => max = self.int_setting(&value, "max", 0..=RETRIES_ALLOWED_MAX).unwrap_or(max),
                "backoff" => {
                    backoff = self.duration_setting(&value, "backoff", 0..=WAIT_ALLOWED_MAX_MS).unwrap_or(backoff)
                }
                _ => factor = self.float_setting(&value, "factor", 1.0..=100.0).unwrap_or(factor),
            }
        }
        waits(max, backoff, factor)
    }

    /// `schedule` of an agent or a flow.
    pub(super) fn schedule(&mut self, value: &ast::Expr) -> Schedule {
        let mut schedule = Schedule::default();
        let known = ["priority", "weight", "estimate", "cpu", "memory", "llm"];
        for Setting { name, value, .. } in self.settings(value, "schedule", &known) {
            match name.as_str() {
                "priority" => {
                    let priority = self.int_setting(&value, &name, 0..=255);
                    schedule.priority = priority.map_or(schedule.priority, |priority| priority as u8);
                }
                "weight" => {
                    schedule.weight = self.float_setting(&value, &name, 0.0..=WEIGHT_MAX).unwrap_or(schedule.weight);
                }
                "estimate" => {
                    let estimate = self.duration_setting(&value, &name, 0..=WAIT_ALLOWED_MAX_MS);
                    schedule.estimate = estimate.map_or(schedule.estimate, Millis);
                }
                "cpu" => {
                    let cores = self.float_setting(&value, &name, 0.0..=CORES_MAX);
                    schedule.cpu_milli = cores.map_or(schedule.cpu_milli, |cores| (cores * 1000.0).round() as u32);
                }
                "memory" => {
                    let bytes = self.int_setting(&value, &name, HEAP_BYTES_MIN..=HEAP_BYTES_MAX as i64);
                    schedule.memory_bytes = bytes.map_or(schedule.memory_bytes, i64::unsigned_abs);
                }
                _ => {
                    let slots = self.int_setting(&value, &name, 0..=SLOTS_MAX);
                    schedule.llm_slots = slots.map_or(schedule.llm_slots, |slots| slots as u32);
                }
            }
        }
        schedule
    }

    /// Whether a model is asked about the conditions of semantic types in the answer.
    fn validate(&mut self, agent: &mut hir::Agent, value: &ast::Expr) {
        let Some(word) = self.text_setting(value, "validate") else { return };
        match word.as_str() {
            "schema" => agent.asks_conditions = false,
            "semantic" => agent.asks_conditions = self.types.questions(&agent.result, hir::Asked::Every) > 0,
            _ => self.out_of_range(value.span(), "validate", &format!("\"{word}\""), "`schema` and `semantic`"),
        }
    }

    /// Whether an earlier answer to the same request will do.
    fn cache(&mut self, agent: &mut hir::Agent, value: &ast::Expr) {
        let Some(word) = self.text_setting(value, "cache") else { return };
        match word.as_str() {
            "off" => agent.cache = false,
            "exact" => agent.cache = true,
            _ => self.out_of_range(value.span(), "cache", &format!("\"{word}\""), "`off` and `exact`"),
        }
    }

    fn tool_choice(&mut self, agent: &mut hir::Agent, value: &ast::Expr) {
        let Some(word) = self.text_setting(value, "tool_choice") else { return };
        agent.tool_choice = match word.as_str() {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            "none" => ToolChoice::None,
            _ => {
                let known = ["auto", "required", "none"];
                let message = format!("`tool_choice` is \"{word}\", and may be {}", super::listed(known));
                let out = self.finding(Code::E0403, value.span(), message);
                let out = self.suggest(out, &word, known);
                self.report(out);
                ToolChoice::Auto
            }
        };
    }
}
