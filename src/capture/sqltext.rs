//! Takes the terms and the predicate out of a CREATE INDEX statement, byte for byte between tokens.
//!
//! Owns just enough of SQL's lexical rules for that (<https://sqlite.org/lang_createindex.html>): strings,
//! quoted names, comments, words. It never judges an expression; what it returns goes back to SQLite.

/// The indexed terms without COLLATE / ASC / DESC, and the WHERE of a partial index.
pub(crate) fn index_terms(create: &str) -> (Vec<String>, Option<String>) {
    let tokens = tokens(create);
    // CREATE UNIQUE INDEX [IF NOT EXISTS] name ON table (…): the first bare ON after the name.
    let mut seen = 0;
    let on = tokens.iter().position(|t| {
        seen += usize::from(*t != " ");
        seen > 4 && t.eq_ignore_ascii_case("on")
    });
    let Some(open) = on.and_then(|on| tokens.iter().skip(on).position(|t| *t == "(").map(|i| on + i)) else {
        return (Vec::new(), None);
    };
    let mut depth = 0;
    let mut terms = vec![Vec::new()];
    let mut rest = tokens.iter().skip(open).copied();
    for token in rest.by_ref() {
        match token {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        match (token, depth) {
            (")", 0) => break,
            ("(", 1) if terms.len() == 1 && terms.iter().all(Vec::is_empty) => {}
            (",", 1) => terms.push(Vec::new()),
            _ => terms.iter_mut().last().into_iter().for_each(|t: &mut Vec<&str>| t.push(token)),
        }
    }
    let rest: Vec<&str> = rest.collect();
    let predicate = rest
        .iter()
        .position(|t| t.eq_ignore_ascii_case("where"))
        .map(|at| rest.iter().skip(at + 1).copied().collect::<String>().trim().to_owned());
    (terms.into_iter().map(without_order).collect(), predicate)
}

/// The generated columns of a CREATE TABLE statement, with their expressions.
pub(crate) fn generated(create: &str) -> Vec<(String, String)> {
    let tokens = tokens(create);
    let open = tokens.iter().position(|t| *t == "(").unwrap_or(tokens.len());
    let mut out = Vec::new();
    let (mut depth, mut column, mut as_seen) = (0, None::<&str>, false);
    let mut expression: Option<String> = None;
    for token in tokens.into_iter().skip(open) {
        depth -= usize::from(token == ")" && depth > 0);
        match (&mut expression, depth) {
            (Some(text), 2..) => text.push_str(token),
            (Some(text), _) => {
                out.extend(column.map(|name| (unquoted(name), text.trim().to_owned())));
                expression = None;
            }
            (None, 1) if token == "," => (column, as_seen) = (None, false),
            (None, 1) if token == "(" && as_seen => expression = Some(String::new()),
            (None, 1) if token != " " => {
                column = column.or(Some(token));
                as_seen = token.eq_ignore_ascii_case("as");
            }
            _ => {}
        }
        depth += usize::from(token == "(");
    }
    out
}

/// The statements of a script; a CREATE TRIGGER stands alone.
pub(crate) fn statements(script: &str) -> Vec<String> {
    let tokens = tokens(script);
    if tokens.iter().filter(|t| **t != " ").nth(1).is_some_and(|t| t.eq_ignore_ascii_case("trigger")) {
        return vec![script.to_owned()];
    }
    let all = tokens.split(|t| *t == ";").map(|s| s.concat().trim().to_owned());
    all.filter(|s| !s.is_empty()).collect()
}

/// A term without what only says how it is sorted.
fn without_order(mut term: Vec<&str>) -> String {
    let trim = |term: &mut Vec<&str>| {
        while term.last() == Some(&" ") {
            term.pop();
        }
    };
    trim(&mut term);
    if term.last().is_some_and(|t| t.eq_ignore_ascii_case("asc") || t.eq_ignore_ascii_case("desc")) {
        term.pop();
    }
    loop {
        trim(&mut term);
        let words: Vec<usize> = (0..term.len()).filter(|i| term.get(*i) != Some(&" ")).collect();
        let collate = words.len().checked_sub(2).and_then(|n| words.get(n)).copied();
        match collate {
            Some(at)
                if words.len() > 2 && term.get(at).is_some_and(|t| t.eq_ignore_ascii_case("collate")) =>
            {
                term.truncate(at);
            }
            _ => return term.concat().trim().to_owned(),
        }
    }
}

/// The names and keywords of an expression, unquoted; string literals too, which SQLite may read as names.
pub(crate) fn words(expression: &str) -> Vec<String> {
    tokens(expression).into_iter().filter(|t| is_name(t) || t.starts_with('\'')).map(unquoted).collect()
}

/// The same without string literals.
pub(crate) fn names(expression: &str) -> Vec<String> {
    tokens(expression).into_iter().filter(|t| is_name(t)).map(unquoted).collect()
}

fn is_name(token: &str) -> bool {
    token.starts_with(['"', '`', '['])
        || token.chars().next().is_some_and(|c| is_word(c) && !c.is_ascii_digit())
}

/// The names between double quotes that stand where a column may: SQLite takes one that is none for a string.
pub(crate) fn quoted_columns(expression: &str) -> Vec<String> {
    let tokens: Vec<&str> = tokens(expression).into_iter().filter(|t| *t != " ").collect();
    let of = |(n, token): (usize, &&str)| {
        let before = n.checked_sub(1).and_then(|n| tokens.get(n)).copied().unwrap_or_default();
        let is_column = !before.eq_ignore_ascii_case("collate") && tokens.get(n + 1) != Some(&"(");
        (token.starts_with('"') && is_column).then(|| unquoted(token))
    };
    tokens.iter().enumerate().filter_map(of).collect()
}

/// Whether an expression compares values otherwise than with NULL: then the affinity of its columns matters.
pub(crate) fn compares(expression: &str) -> bool {
    let tokens = tokens(expression);
    let count = |word: &str| tokens.iter().filter(|t| t.eq_ignore_ascii_case(word)).count();
    let compared = ["=", "<", ">", "in", "between", "case"].into_iter().any(|w| count(w) > 0);
    compared || count("is") > count("null")
}

/// The expression with these names between double quotes written as the strings they are.
pub(crate) fn with_strings(expression: &str, is_string: impl Fn(&str) -> bool) -> String {
    let token = |t: &str| {
        let name = unquoted(t);
        if t.starts_with('"') && is_string(&name) { format!("'{name}'") } else { t.to_owned() }
    };
    tokens(expression).into_iter().map(token).collect()
}

/// The expression with other names in the place of some.
pub(crate) fn with_names(expression: &str, other: impl Fn(&str) -> Option<String>) -> String {
    let token = |t: &str| other(&unquoted(t)).filter(|_| is_name(t)).unwrap_or_else(|| t.to_owned());
    tokens(expression).into_iter().map(token).collect()
}

fn unquoted(token: &str) -> String {
    let inner = || token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    match token.chars().next() {
        Some(q @ ('"' | '`' | '\'')) => inner().replace(&format!("{q}{q}"), &q.to_string()),
        Some('[') => inner().to_owned(),
        _ => token.to_owned(),
    }
}

/// Splits SQL into tokens; white space and comments become one space.
fn tokens(sql: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let len = token_len(rest, first);
        let (token, after) = rest.split_at(len);
        let blank = first.is_whitespace() || token.starts_with("--") || token.starts_with("/*");
        out.push(if blank { " " } else { token });
        rest = after;
    }
    out
}

fn token_len(rest: &str, first: char) -> usize {
    let until = |f: &dyn Fn(char) -> bool| rest.find(|c: char| !f(c)).unwrap_or(rest.len());
    if rest.starts_with("--") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.get(2..).and_then(|r| r.find("*/")).map_or(rest.len(), |i| i + 4);
    }
    match first {
        '\'' | '"' | '`' => quoted_len(rest, first),
        '[' => rest.find(']').map_or(rest.len(), |i| i + 1),
        c if c.is_whitespace() => until(&char::is_whitespace),
        c if c.is_ascii_digit() => until(&|c| c.is_alphanumeric() || c == '.'),
        c if is_word(c) => until(&is_word),
        c => c.len_utf8(),
    }
}

/// SQLite takes every character beyond ASCII as a letter.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of a quoted token; a doubled quote stands for itself.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                }
                _ => return i + 1,
            }
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_predicate_come_out_as_they_were_written() {
        let sql = "create unique index [on (x)] ON t(lower(\"a,b\") COLLATE nocase DESC, b -- (c\n, 'x''('||c) where d > '(' /* e */";
        let (terms, predicate) = index_terms(sql);
        assert_eq!(terms, ["lower(\"a,b\")", "b", "'x''('||c"]);
        assert_eq!(predicate.as_deref(), Some("d > '('"));
        let (terms, predicate) =
            index_terms("CREATE UNIQUE INDEX IF NOT EXISTS \"on\" on \"t\"((a+b)*(c), d asc)");
        assert_eq!((terms, predicate), (vec!["(a+b)*(c)".to_owned(), "d".to_owned()], None));
    }

    #[test]
    fn generated_columns_come_with_their_expressions() {
        let sql = "CREATE TABLE t(a, \"b(\" INT GENERATED ALWAYS AS (lower(a) || ')') STORED UNIQUE, c AS (a+1), CHECK (a AS (2)))";
        let found = generated(sql);
        let expected = [("b(", "lower(a) || ')'"), ("c", "a+1")].map(|(n, x)| (n.to_owned(), x.to_owned()));
        assert_eq!(found.get(..2), Some(expected.as_slice()));
    }

    #[test]
    fn comparisons_are_seen() {
        for compares in ["a = 1", "a<>b", "a In (1)", "a IS 1", "case a when 1 then b end", "a >= '5'"] {
            assert!(super::compares(compares), "{compares}");
        }
        for none in ["a IS NULL", "a IS NOT NULL AND b IS NULL", "lower(a) || 'a = b'", "\"case\"", "a"] {
            assert!(!super::compares(none), "{none}");
        }
    }

    #[test]
    fn a_script_comes_apart_into_its_statements() {
        assert_eq!(
            statements("-- a;b\nDROP VIEW ';'; CREATE VIEW x AS SELECT 1;\n"),
            ["DROP VIEW ';'", "CREATE VIEW x AS SELECT 1"]
        );
        let trigger = "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT 2; END";
        assert_eq!(statements(trigger), [trigger]);
    }

    #[test]
    fn words_are_unquoted() {
        assert_eq!(
            words("lower(\"a\"\"b\")||[c d]+`e`*_f1 - ünï"),
            ["lower", "a\"b", "c d", "e", "_f1", "ünï"]
        );
    }
}
