//! `memory` of an agent: how it remembers its conversation with its model.
//!
//! ```text
//! memory: { scope: "agent", window: 6_000, page_size: 8, max_pages: 8, threshold: 0.2, evict: "hybrid" }
//! ```
//!
//! Each setting has a default, so `memory: {}` is enough.

use nexa_event::effect::{
    ConversationScope, EvictionPolicy, MAX_PAGES_MAX, PAGE_SIZE_MAX, Remembering, WINDOW_MAX, WINDOW_MIN,
};
use nexa_types::Tokens;

use super::Checker;
use super::constants::Setting;
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;

const SETTINGS: [&str; 6] = ["scope", "window", "page_size", "max_pages", "threshold", "evict"];

impl Checker<'_> {
    /// `memory` of an agent.
    pub(super) fn memory(&mut self, value: &ast::Expr) -> Remembering {
        let mut memory = Remembering::default();
        for Setting { name, value, .. } in self.settings(value, "memory", &SETTINGS) {
            match name.as_str() {
                "scope" => {
                    memory.scope = self.word_of(&value, &name, &ConversationScope::ALL, ConversationScope::as_str)
                }
                "evict" => memory.evict = self.word_of(&value, &name, &EvictionPolicy::ALL, EvictionPolicy::as_str),
                "threshold" => {
                    memory.threshold = self.float_setting(&value, &name, -1.0..=1.0).unwrap_or(memory.threshold);
                }
                "window" => {
                    let tokens = self.int_setting(&value, &name, WINDOW_MIN as i64..=WINDOW_MAX as i64);
                    memory.window = tokens.map_or(memory.window, |tokens| Tokens(tokens.unsigned_abs()));
                }
                "page_size" => {
                    let size = self.int_setting(&value, &name, 1..=i64::from(PAGE_SIZE_MAX));
                    memory.page_size = size.map_or(memory.page_size, |size| size as u32);
                }
                _ => {
                    let pages = self.int_setting(&value, &name, 1..=i64::from(MAX_PAGES_MAX));
                    memory.max_pages = pages.map_or(memory.max_pages, |pages| pages as u32);
                }
            }
        }
        memory
    }

    /// One of some words; the default if it is none of them.
    fn word_of<T: Copy + Default>(
        &mut self,
        value: &ast::Expr,
        name: &str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> T {
        let Some(given) = self.text_setting(value, name) else { return T::default() };
        let found = all.iter().copied().find(|one| word(*one) == given);
        found.unwrap_or_else(|| {
            let known: Vec<&str> = all.iter().copied().map(word).collect();
            let message = format!("`{name}` is \"{given}\", and may be {}", super::listed(known.iter().copied()));
            let out = self.finding(Code::E0403, value.span(), message);
            let out = self.suggest(out, &given, known.iter().copied());
            self.report(out);
            T::default()
        })
    }
}
