//! SHA-256 over bytes and over the files of a source tree.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The SHA-256 of some bytes, in hexadecimal.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// The SHA-256 over names and contents of files and folders below `root`.
///
/// The same for the same tree, wherever it lies.
pub fn of_tree(root: &Path, parts: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for part in parts {
        collect(&root.join(part), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let content = read(&file)?;
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy();
        // Lengths keep a byte from moving between a name and a content unnoticed.
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    Ok(hex(hasher.finalize().as_slice()))
}

/// The content of a file; the error names the file.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let cannot_list = || format!("cannot list {}", path.display());
    for entry in fs::read_dir(path).with_context(cannot_list)? {
        collect(&entry.with_context(cannot_list)?.path(), files)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_hash_as_sha256sum_does() {
        assert_eq!(
            of_bytes(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_tree_hashes_by_names_and_contents() {
        let folder = std::env::temp_dir().join(format!("xtask-digest-{}", std::process::id()));
        let hash_of = |files: &[(&str, &str)]| {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(folder.join("src/deep")).expect("a temporary folder");
            for (name, content) in files {
                fs::write(folder.join(name), content).expect("a temporary file");
            }
            of_tree(&folder, &["src"]).expect("a readable tree")
        };
        let tree = [("src/a", "one"), ("src/deep/b", "two")];
        let same = [("src/deep/b", "two"), ("src/a", "one")];
        let renamed = [("src/a", "one"), ("src/deep/c", "two")];
        let moved_byte = [("src/a", "on"), ("src/deep/b", "etwo")];
        let outside = [("src/a", "one"), ("src/deep/b", "two"), ("notes", "three")];
        let hash = hash_of(&tree);
        assert_eq!(hash_of(&same), hash);
        assert_eq!(hash_of(&outside), hash);
        assert_ne!(hash_of(&renamed), hash);
        assert_ne!(hash_of(&moved_byte), hash);
        fs::remove_dir_all(&folder).expect("the temporary folder");
    }

    #[test]
    fn a_missing_part_is_an_error() {
        let error = of_tree(Path::new("/"), &["no/such/file"]).expect_err("nothing to hash");
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}
