//! Flipped bits, page for page.
