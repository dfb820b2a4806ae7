//! The page at `/`: one document with everything in it, put together when the program is built.
//!
//! Its parts are plain HTML, CSS and JavaScript, a file for each job; the scripts share one scope and
//! stand here in the order in which they need each other. It asks the API for everything and knows
//! nothing that the API does not say. No text of others ever becomes HTML: the page forbids that to
//! itself (`require-trusted-types-for`), and the tests below keep the ways to do so out of its source.

/// The page as it is served, UTF-8.
pub(super) fn page() -> &'static str {
    PAGE
}

const PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>\n",
    include_str!("uplot/uPlot.min.css"),
    include_str!("look.css"),
    include_str!("topology.css"),
    include_str!("panels.css"),
    "</style>\n",
    include_str!("body.html"),
    "<script>\n/*\n",
    include_str!("uplot/LICENSE"),
    "\n*/\n",
    include_str!("uplot/uPlot.iife.min.js"),
    "</script>\n<script>\n(() => {\n\"use strict\";\n",
    include_str!("words.js"),
    include_str!("elements.js"),
    include_str!("history.js"),
    include_str!("access.js"),
    include_str!("server.js"),
    include_str!("stream.js"),
    include_str!("pool.js"),
    include_str!("charts.js"),
    include_str!("demo.js"),
    include_str!("notices.js"),
    include_str!("live.js"),
    "})();\n</script>\n</body>\n</html>\n"
);
