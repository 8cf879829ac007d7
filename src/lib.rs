//! `pack`: a reproducible submission packager for machine-learning competitions.
//!
//! Modules are listed by layer, and within a layer by name. A module may use its own layer and those above it, never
//! one below. Layers 0 to 2 are pure: no file, socket, process, clock or environment.

// 0 words: small value types
pub mod artifact;
pub mod digest;
pub mod path;
pub mod text;
pub mod tree;

// 1 documents: text to types and back
pub mod archive;
pub mod attestation;
pub mod cdi;
pub mod competition;
pub mod lockfile;
pub mod manifest;
pub mod record;
pub mod weights;

// 2 decisions: pure functions, documents in, documents out
pub mod compare;
pub mod copies;
pub mod diff;
pub mod invocation;
pub mod plan;
pub mod recognise;
pub mod report;
pub mod rules;
pub mod secret;
pub mod step;
pub mod templates;
pub mod verdict;

// 3 effects: thin, each owns one capability
pub mod bundle;
pub mod clock;
pub mod distance;
pub mod folders;
pub mod image;
pub mod keys;
pub mod layer;
pub mod net;
pub mod par;
pub mod pipe;
pub mod progress;
pub mod regular;
pub mod runner;
pub mod search;
pub mod source;
pub mod store;
pub mod target;
pub mod tensors;
pub mod tool;

// 4 commands: choose capabilities, call the above, render
pub mod cli;
