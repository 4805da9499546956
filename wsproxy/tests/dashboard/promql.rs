//! As much of PromQL as names metrics and labels: <https://prometheus.io/docs/prometheus/latest/querying/basics/>.
//! Not its grammar: that is `promtool`'s, where it is there.

/// Functions and aggregations; any other word is a metric's name.
const FUNCTIONS: [&str; 10] = [
    "avg",
    "clamp_max",
    "count",
    "delta",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "rate",
    "sum",
];
const OPERATORS: [&str; 5] = ["and", "bool", "offset", "or", "unless"];
/// Words before a list of labels. The first two belong to an aggregation.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What a query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub selectors: Vec<Selector>,
    pub groupings: Vec<Grouping>,
}

/// A metric, as it is chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    /// Labels and what they are compared with.
    pub matchers: Vec<(String, String)>,
    /// Over a time, as `rate` wants it.
    pub over_time: bool,
    at: usize,
}

/// A list of labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Grouping {
    pub labels: Vec<String>,
    /// It says which labels are left: `by`.
    pub leaves: bool,
    /// The [`Query::selectors`] that it is about.
    pub about: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    /// A number or a duration.
    Number,
    /// What stands in brackets.
    Range,
    Sign(char),
}

/// What `text` names.
///
/// # Errors
/// It can't be PromQL, in words.
pub fn read(text: &str) -> Result<Query, String> {
    let tokens = tokens(text)?;
    let pairs = pairs(&tokens)?;
    let mut reader = Reader { tokens: &tokens, pairs: &pairs, at: 0 };
    let mut query = Query::default();
    let mut scopes = Vec::new();
    while let Some(token) = reader.next() {
        match token {
            Token::Word(word) if GROUPINGS.contains(&word) => {
                let (grouping, scope) = reader.grouping(word)?;
                query.groupings.push(grouping);
                scopes.push(scope);
            }
            Token::Word(word) if FUNCTIONS.contains(&word) || OPERATORS.contains(&word) => {}
            Token::Word(name) => query.selectors.push(reader.selector(name)?),
            Token::Sign('{') => return Err("a selector without a metric".to_owned()),
            _ => {}
        }
    }
    for (grouping, (from, to)) in query.groupings.iter_mut().zip(scopes) {
        let inside = |&at: &usize| (from..to).contains(&query.selectors[at].at);
        grouping.about = (0..query.selectors.len()).filter(inside).collect();
    }
    Ok(query)
}

fn tokens(mut text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    while let Some(first) = text.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
        let (token, length) = match first {
            '"' => {
                let end = text[1..].find('"').ok_or("a text without an end")?;
                (Some(Token::Text(&text[1..=end])), end + 2)
            }
            '[' => {
                let end = text.find(']').ok_or("a range without an end")?;
                (Some(Token::Range), end + 1)
            }
            c if is_word(c) => {
                let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
                let word = Token::Word(&text[..length]);
                (Some(if c.is_ascii_digit() { Token::Number } else { word }), length)
            }
            c if c.is_whitespace() => (None, c.len_utf8()),
            c if "(){},+-*/%^=!<>~@".contains(c) => (Some(Token::Sign(c)), 1),
            c => return Err(format!("what is {c:?}?")),
        };
        tokens.extend(token);
        text = &text[length..];
    }
    Ok(tokens)
}

/// For each parenthesis where its other one is; nothing for other tokens.
fn pairs(tokens: &[Token<'_>]) -> Result<Vec<Option<usize>>, String> {
    let mut pairs = vec![None; tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(') => open.push(at),
            Token::Sign(')') => {
                let other = open.pop().ok_or("one `)` too many")?;
                (pairs[at], pairs[other]) = (Some(other), Some(at));
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(pairs) } else { Err("one `(` too many".to_owned()) }
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    pairs: &'a [Option<usize>],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, sign: char) -> bool {
        let is_there = self.peek() == Some(Token::Sign(sign));
        self.at += usize::from(is_there);
        is_there
    }

    /// Behind the name of a metric.
    fn selector(&mut self, name: &str) -> Result<Selector, String> {
        let (at, mut matchers) = (self.at - 1, Vec::new());
        if self.take('{') {
            while !self.take('}') {
                let Some(Token::Word(label)) = self.next() else {
                    return Err(format!("no label in the braces of {name}"));
                };
                while let Some(Token::Sign('=' | '!' | '~')) = self.peek() {
                    self.at += 1;
                }
                let Some(Token::Text(value)) = self.next() else {
                    return Err(format!("no value for {label} of {name}"));
                };
                matchers.push((label.to_owned(), value.to_owned()));
                self.take(',');
            }
        }
        let over_time = self.peek() == Some(Token::Range);
        Ok(Selector { name: name.to_owned(), matchers, over_time, at })
    }

    /// Behind `by` and its like: the labels, and which tokens they are about.
    fn grouping(&mut self, word: &str) -> Result<(Grouping, (usize, usize)), String> {
        let before = self.at.checked_sub(2);
        if !self.take('(') {
            return Err(format!("no labels behind `{word}`"));
        }
        let mut labels = Vec::new();
        while !self.take(')') {
            match self.next() {
                Some(Token::Word(label)) => labels.push(label.to_owned()),
                Some(Token::Sign(',')) => {}
                other => return Err(format!("{other:?} among the labels of `{word}`")),
            }
        }
        let whole = (0, self.tokens.len());
        let scope = match word {
            "by" | "without" => self.scope(before).ok_or("`by` without an aggregation")?,
            _ => whole,
        };
        Ok((Grouping { labels, leaves: word == "by", about: Vec::new() }, scope))
    }

    /// The parentheses of an aggregation: behind its labels, or before them.
    fn scope(&self, before: Option<usize>) -> Option<(usize, usize)> {
        if self.peek() == Some(Token::Sign('(')) {
            return Some((self.at, self.pairs[self.at]?));
        }
        let before = before.filter(|&at| self.tokens[at] == Token::Sign(')'))?;
        Some((self.pairs[before]?, before + 1))
    }
}

#[test]
fn names_labels_and_scopes_are_found() {
    let query = read(
        "sum by (a, b) (rate(m_total{c=\"x y\", d!~\"1|2\"}[5m])) / on (e) max(n) by (f) > 0.5 \
         and p offset 1h",
    )
    .unwrap();
    let names: Vec<_> = query.selectors.iter().map(|s| (&*s.name, s.over_time)).collect();
    assert_eq!(names, [("m_total", true), ("n", false), ("p", false)]);
    let matchers = [("c", "x y"), ("d", "1|2")].map(|(l, v)| (l.to_owned(), v.to_owned()));
    assert_eq!(query.selectors[0].matchers, matchers);
    let groupings: Vec<_> =
        query.groupings.iter().map(|g| (g.labels.join(","), g.leaves, g.about.clone())).collect();
    assert_eq!(
        groupings,
        [
            ("a,b".to_owned(), true, vec![0]),
            ("e".to_owned(), false, vec![0, 1, 2]),
            ("f".to_owned(), true, vec![1])
        ]
    );
}

#[test]
fn what_is_no_query_is_refused() {
    for text in
        ["sum(a", "a)", "{b=\"c\"}", "a{b}", "a{=\"c\"}", "sum by a (b)", "a \"", "a[5m", "#"]
    {
        assert!(read(text).is_err(), "{text}: {:?}", read(text));
    }
}
