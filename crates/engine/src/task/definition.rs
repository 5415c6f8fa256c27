//! A task as its file in the root has it, and as the machines need it.

use gaffer_config::{Logger, ThermosContext, ThermosTask, load_thermos_json};
use gaffer_core::task::record::Header;
use gaffer_core::task::spec::Task;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task that can be run.
#[derive(Clone, Debug)]
pub struct Definition {
    /// For the machine.
    pub spec: Arc<Task>,
    /// As it is kept: everything filled in.
    pub json: Value,
    /// How steps keep their output, where they say so themselves.
    pub loggers: BTreeMap<String, Logger>,
}

/// A definition that was kept and cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the definition of the task cannot be understood: {0}")]
pub struct DefinitionError(pub String);

impl From<ThermosTask> for Definition {
    fn from(task: ThermosTask) -> Definition {
        Definition {
            spec: task.spec,
            json: task.json,
            loggers: task.loggers,
        }
    }
}

impl Definition {
    /// What was kept, with what its header says of where and as whom it runs.
    pub fn again(text: &[u8], header: &Header) -> Result<Definition, DefinitionError> {
        let json: Value = serde_json::from_slice(text).map_err(|error| DefinitionError(error.to_string()))?;
        let context = ThermosContext {
            task: None,
            task_id: header.task_id.to_string(),
            user: header.user.to_string(),
            ports: header
                .ports
                .iter()
                .map(|(name, port)| (name.to_string(), *port))
                .collect(),
            bindings: BTreeMap::new(),
            sandbox: header.sandbox.to_string(),
        };
        load_thermos_json(&json, &context)
            .map(Definition::from)
            .map_err(|errors| DefinitionError(errors.render(false)))
    }

    /// The bytes of its file.
    pub fn bytes(&self) -> Vec<u8> {
        // Texts, numbers and lists always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(&self.json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
