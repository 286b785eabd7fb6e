//! How things look: words and numbers for people, JSON for programs. Pure: values in, text out.

pub mod graph;
pub mod json;
pub mod plan;
pub mod planned;
pub mod table;
pub mod words;
