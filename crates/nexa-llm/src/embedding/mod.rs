//! Vectors of texts: all-MiniLM-L6-v2 on the processor, in this process, without a key or a server.
//!
//! - [`worker`]: the `Embedder` port: a bounded queue, queries before pages, one thread that takes turns.
//! - `engine`: texts to vectors. Beneath it `pieces` (text to word pieces), `encoder` (the network), `product` (the
//!   products of its matrices) and `attention`.
//! - [`remembering`]: a bounded memory of vectors before any embedder, by the text's hash.
//!
//! The weights come as those of the language model do ([`crate::embedded::pull`]); an endpoint's vectors come through
//! [`crate::openai::embeddings`].

mod attention;
#[cfg(test)]
mod book;
mod encoder;
mod engine;
mod pieces;
mod product;
pub mod remembering;
#[cfg(test)]
mod tests;
pub mod worker;

pub use remembering::Remembering;
pub use worker::EmbeddingModel;
