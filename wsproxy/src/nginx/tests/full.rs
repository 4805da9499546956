use super::*;

const TEXT: &str = include_str!("data/full.conf");

#[test]
fn a_whole_configuration() {
    let import = imported(TEXT);
    assert_eq!(import.toml, include_str!("data/full.toml"));
}

#[test]
fn what_needs_a_look() {
    let import = imported(TEXT);
    let lines = |severity: Severity| -> Vec<usize> {
        import.notes.iter().filter(|n| n.severity == severity).map(|n| n.line).collect()
    };
    // Includes, a password, .php and what it closes, expires, error_page, an include, stream.
    assert_eq!(lines(Severity::Unsupported), [4, 136, 140, 140, 145, 152, 164, 167]);
    assert_eq!(lines(Severity::Changed), [64, 77, 102, 103, 107, 115, 122, 143]);
    let sorted: Vec<usize> = import.notes.iter().map(|note| note.line).collect();
    assert!(sorted.is_sorted());
}
