use super::*;

fn broken(text: &str) -> String {
    import(&|_| None, "n.conf", text).unwrap_err().to_string()
}

/// What an `include` finds that names one file.
fn one(file: &str, text: &str) -> Option<Vec<Included>> {
    Some(vec![Included { file: file.to_owned(), text: text.to_owned() }])
}

#[test]
fn mistakes_have_a_place() {
    for (text, expected) in [
        ("server {", "n.conf:1:8: this \"{\" is not closed"),
        ("http {\n  server {\n  }\n", "n.conf:1:6: this \"{\" is not closed"),
        ("a;\n}", "n.conf:2:1: this \"}\" closes nothing"),
        ("a b", "n.conf:1:1: the text ends in this directive: \";\" or \"{\" is missing"),
        ("s {\n listen 80\n}", "n.conf:2:2: this directive does not end with \";\""),
        (";", "n.conf:1:1: no directive before this \";\""),
        ("a {\n {", "n.conf:2:2: no directive before this \"{\""),
        ("a \"b;\n", "n.conf:1:3: this quote is not closed"),
        ("a 'b'c;", "n.conf:1:6: a space or \";\" must follow a closed quote"),
        ("include;", "n.conf:1:1: include takes one path"),
        ("x_by_lua_block { {", "n.conf:1:16: this \"{\" is not closed"),
    ] {
        assert_eq!(broken(text), expected, "{text}");
    }
}

#[test]
fn everything_is_bounded() {
    let deep = |depth: usize| "a {".repeat(depth) + &"}".repeat(depth);
    assert!(import(&|_| None, "n", &deep(DEPTH_MAX)).is_ok());
    assert_eq!(broken(&deep(DEPTH_MAX + 1)), "n.conf:1:99: more than 32 blocks inside each other");
    let long = |bytes: usize| "#".repeat(bytes);
    assert!(import(&|_| None, "n", &long(TEXT_MAX)).is_ok());
    assert_eq!(broken(&long(TEXT_MAX + 1)), "n.conf:1:1: more than 1 MiB with what is included");
    let endless = |_: &str| one("a", "include a;");
    let error = import(&endless, "n", "include a;").unwrap_err();
    assert_eq!(error.message, "more than 16 includes inside each other");
    let twice = |_: &str| one("a", &"include a; include a; ".repeat(1_000));
    assert!(import(&twice, "n", "include a;").is_err());
}

#[test]
fn includes_stand_where_they_are() {
    let files = |path: &str| match path {
        "conf.d/*.conf" => {
            let mut files = one("conf.d/a.conf", "server {\n include locations; \n}\n")?;
            files.extend(one("conf.d/b.conf", "\nand_this off;")?);
            Some(files)
        }
        "none/*" => Some(Vec::new()),
        "locations" => one("locations", "location / { return 204; }\nwhat_is_this on;"),
        "broken" => one("broken", "a\n 'b"),
        _ => None,
    };
    let text = "http { include mime.types; include conf.d/*.conf; include none/*; include gone; }";
    let made = import(&files, "n.conf", text).unwrap();
    check(&made.toml);
    assert!(made.toml.contains("# locations:1: location /\n"), "{}", made.toml);
    let notes: Vec<String> = made.notes.iter().map(Note::to_string).collect();
    assert_eq!(
        notes,
        [
            "n.conf:1: ignored: include mime.types: not needed",
            "n.conf:1: unsupported: include gone: can't be read: what it includes is missing here",
            "conf.d/b.conf:2: unsupported: and_this off: there is nothing like it here",
            "locations:2: unsupported: what_is_this on: there is nothing like it here",
        ]
    );
    let error = import(&files, "n.conf", "include broken;").unwrap_err();
    assert_eq!(error.to_string(), "broken:2:2: this quote is not closed");
}
