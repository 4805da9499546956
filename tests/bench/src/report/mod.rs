//! What a run is turned into: Markdown, JSON and pictures.

pub mod group;
pub mod losses;
pub mod markdown;
pub mod stats;
pub mod svg;
pub mod targets;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::results::Run;

/// Writes `run.json`, `report.md`, `extract.md` and the plots.
///
/// # Errors
/// A file can't be written.
pub fn write(run: &Run, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("run.json", &serde_json::to_string(run)?)?;
    let mut plots = Vec::new();
    for (file, caption, svg) in svg::plots(run) {
        write(&file, &svg)?;
        plots.push((file, caption));
    }
    write("report.md", &markdown::document(run, &plots))?;
    write("extract.md", &markdown::extract(run))
}
