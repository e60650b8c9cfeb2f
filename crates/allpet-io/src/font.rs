//! A bitmap font of 3 × 5 pixels, drawn for this project, for captions and tick numbers.

/// Width of a glyph in font pixels.
pub(crate) const WIDTH: usize = 3;
/// Height of a glyph in font pixels.
pub(crate) const HEIGHT: usize = 5;

// One octal digit per row, top row first; in a digit 4 is the left pixel, 1 the right one.
#[rustfmt::skip]
const GLYPHS: &[(char, u32)] = &[
    ('0', 0o75557), ('1', 0o26227), ('2', 0o71747), ('3', 0o71717), ('4', 0o55711),
    ('5', 0o74717), ('6', 0o74757), ('7', 0o71122), ('8', 0o75757), ('9', 0o75717),
    ('A', 0o25755), ('B', 0o65656), ('C', 0o34443), ('D', 0o65556), ('E', 0o74647),
    ('F', 0o74644), ('G', 0o34553), ('H', 0o55755), ('I', 0o72227), ('J', 0o11152),
    ('K', 0o55655), ('L', 0o44447), ('M', 0o57755), ('N', 0o65555), ('O', 0o25552),
    ('P', 0o65644), ('Q', 0o25563), ('R', 0o65655), ('S', 0o34216), ('T', 0o72222),
    ('U', 0o55557), ('V', 0o55552), ('W', 0o55775), ('X', 0o55255), ('Y', 0o55222),
    ('Z', 0o71247), (' ', 0), ('.', 0o00002), (',', 0o00024), (':', 0o02020),
    (';', 0o02024), ('-', 0o00700), ('+', 0o02720), ('=', 0o07070), ('/', 0o11244),
    ('(', 0o12221), (')', 0o42224), ('[', 0o32223), (']', 0o62226), ('%', 0o51245),
    ('_', 0o00007), ('*', 0o52500), ('#', 0o57575), ('<', 0o12421), ('>', 0o42124),
    ('!', 0o22202), ('\'', 0o22000), ('"', 0o55000), ('^', 0o25000), ('|', 0o22222),
    ('°', 0o25200), ('²', 0o62460), ('µ', 0o05564), ('σ', 0o03652), ('×', 0o05250),
];

/// Whether a glyph's pixel is set; letters have no lower case, and a character unknown here is a full box.
pub(crate) fn is_set(character: char, column: usize, row: usize) -> bool {
    let upper = character.to_uppercase().next().unwrap_or(character);
    let wanted = |c: char| {
        GLYPHS
            .iter()
            .find(|(known, _)| *known == c)
            .map(|(_, rows)| *rows)
    };
    let rows = wanted(character).or_else(|| wanted(upper)).unwrap_or(0o77777);
    column < WIDTH && row < HEIGHT && rows >> (3 * (HEIGHT - 1 - row) + (WIDTH - 1 - column)) & 1 == 1
}
