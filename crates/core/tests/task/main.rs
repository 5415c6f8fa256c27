//! Tasks in the core: planner, history, stages, and the simulated world with kills between any two steps.
//! Test names begin with the number of their scenario.

mod build;
mod history;
mod plan;
mod sim;
mod stages;
mod world;
