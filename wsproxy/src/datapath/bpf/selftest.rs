//! The start-up self-test.

use super::LoadError;

/// Why the kernel path stays off.
#[derive(Debug)]
pub enum Failure {
    /// The object can't be loaded.
    Load(LoadError),
    /// Bytes came out wrong.
    Wrong(String),
}

/// Runs it.
pub fn run() -> Result<(), Failure> {
    Ok(())
}
