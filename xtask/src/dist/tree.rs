//! The files of an installation, as they lie below `/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Release, fresh, materials};
use crate::arch::Arch;
use crate::shell;

/// The bill of materials.
pub const BILL: &str = "usr/share/doc/wsproxy/bill-of-materials.cdx.json";
const DOC: &str = "usr/share/doc/wsproxy";

/// What is copied as it is, from the repository to below `/`.
const FILES: [(&str, &str); 15] = [
    ("packaging/wsproxy.toml", "etc/wsproxy/wsproxy.toml"),
    ("packaging/wsproxy.service", "usr/lib/systemd/system/wsproxy.service"),
    ("packaging/wsproxy.sysusers", "usr/lib/sysusers.d/wsproxy.conf"),
    ("packaging/persist.conf", "usr/share/wsproxy/persist.conf"),
    ("wsproxy/share/alerts.yaml", "usr/share/wsproxy/alerts.yaml"),
    ("wsproxy/share/grafana-dashboard.json", "usr/share/wsproxy/grafana-dashboard.json"),
    ("README.md", "usr/share/doc/wsproxy/README.md"),
    ("ARCHITECTURE.md", "usr/share/doc/wsproxy/ARCHITECTURE.md"),
    ("SECURITY.md", "usr/share/doc/wsproxy/SECURITY.md"),
    ("wsproxy/CONFIGURATION.md", "usr/share/doc/wsproxy/CONFIGURATION.md"),
    ("docs/INSTALL.md", "usr/share/doc/wsproxy/INSTALL.md"),
    ("docs/METRICS.md", "usr/share/doc/wsproxy/METRICS.md"),
    ("docs/PACKET-PATH.md", "usr/share/doc/wsproxy/PACKET-PATH.md"),
    ("LICENSE-APACHE", "usr/share/doc/wsproxy/LICENSE-APACHE"),
    ("LICENSE-MIT", "usr/share/doc/wsproxy/LICENSE-MIT"),
];

/// Lays them out in an empty `root`.
pub fn lay(
    root: &Path,
    arch: Arch,
    release: &Release,
    program: &Path,
    manual: &Path,
) -> Result<()> {
    fresh(root)?;
    copy(program, &root.join("usr/bin/wsproxy"), 0o755)?;
    for (from, to) in FILES {
        copy(&shell::root().join(from), &root.join(to), 0o644)?;
    }
    copy(&manual.join("example.toml"), &root.join(DOC).join("example.toml"), 0o644)?;
    let completions = [
        ("wsproxy.bash", "usr/share/bash-completion/completions/wsproxy"),
        ("_wsproxy", "usr/share/zsh/vendor-completions/_wsproxy"),
        ("wsproxy.fish", "usr/share/fish/vendor_completions.d/wsproxy.fish"),
    ];
    for (from, to) in completions {
        copy(&manual.join("completions").join(from), &root.join(to), 0o644)?;
    }
    for page in fs::read_dir(manual.join("man")).context("the man pages")?.flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        let section = name.rsplit('.').next().unwrap_or("1");
        let to = root.join(format!("usr/share/man/man{section}")).join(&name);
        copy(&page.path(), &to, 0o644)?;
        compress(&to)?;
    }
    documents(root, arch, release)
}

/// What is written here: changes, copyright, what the program is made of.
fn documents(root: &Path, arch: Arch, release: &Release) -> Result<()> {
    let doc = root.join(DOC);
    let (bill, licences) = materials::of(arch, release)?;
    put(&root.join(BILL), &bill)?;
    put(&doc.join("THIRD-PARTY-LICENSES"), &licences)?;
    put(&doc.join("copyright"), COPYRIGHT)?;
    let changes = fs::read_to_string(shell::root().join("CHANGELOG.md")).context("CHANGELOG.md")?;
    put(&doc.join("changelog"), &changes)?;
    let date = release.date("+%a, %d %b %Y %H:%M:%S %z")?;
    let debian = format!(
        "wsproxy ({}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {}  {date}\n",
        release.version,
        super::deb::MAINTAINER
    );
    put(&doc.join("changelog.Debian"), &debian)?;
    compress(&doc.join("changelog"))?;
    compress(&doc.join("changelog.Debian"))?;
    compress(&doc.join("THIRD-PARTY-LICENSES"))
}

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: wsproxy
Source: https://github.com/wsproxy/wsproxy

Files: *
Copyright: the wsproxy authors
License: MIT or Apache-2.0
 The texts are in LICENSE-MIT and LICENSE-APACHE beside this file; on Debian the latter is also
 /usr/share/common-licenses/Apache-2.0.
Comment: The BPF programs inside /usr/bin/wsproxy are MIT or Apache-2.0, too, and Dual MIT/GPL towards
 the kernel. Linked statically: crates under the licences in THIRD-PARTY-LICENSES.gz, Rust's standard
 library (MIT or Apache-2.0), and the GNU C Library (LGPL-2.1-or-later, text on Debian in
 /usr/share/common-licenses/LGPL-2.1), against another version of which the program can be linked
 from its source with `cargo xtask dist`.
";

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    mode(path, 0o644)
}

fn copy(from: &Path, to: &Path, bits: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    mode(to, bits)
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    let bits = fs::Permissions::from_mode(bits);
    fs::set_permissions(path, bits).with_context(|| path.display().to_string())
}

/// As Debian wants man pages and changes; without name and time, so that equal texts stay equal.
fn compress(path: &Path) -> Result<()> {
    shell::run(Command::new("gzip").args(["-9", "-n", "-f"]).arg(path))
}

/// Everything below `root`, folders before what is in them, sorted.
pub fn below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
