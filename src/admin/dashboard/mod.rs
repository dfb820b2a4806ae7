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
    include_str!("nodes.css"),
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
    include_str!("nodes.js"),
    include_str!("live.js"),
    "})();\n</script>\n</body>\n</html>\n"
);

#[cfg(test)]
mod tests {
    use super::page;

    /// The page without the vendored library, which is others' and minified.
    fn ours() -> String {
        let library = include_str!("uplot/uPlot.iife.min.js");
        page().replace(library, "")
    }

    #[test]
    fn it_asks_nobody_else() {
        let page = ours().replace("http://www.w3.org/2000/svg", "");
        for way in [
            "http://",
            "https://",
            "src=",
            "@import",
            "url(",
            "WebSocket",
        ] {
            assert!(!page.contains(way), "{way}");
        }
    }

    #[test]
    fn text_cannot_become_html() {
        let ways = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "javascript:",
            "DOMParser",
            "srcdoc",
            " onclick=",
            " onerror=",
            " onload=",
            " oninput=",
        ];
        for way in ways {
            assert!(!page().contains(way), "{way}");
        }
        assert!(page().contains("require-trusted-types-for 'script'"));
    }

    #[test]
    fn every_part_is_closed_and_the_licence_is_in_it() {
        for tag in ["script", "style", "head", "body", "html", "main", "dialog"] {
            let count = |text: String| page().matches(&text).count();
            let opened = count(format!("<{tag}>")) + count(format!("<{tag} "));
            assert_eq!(opened, count(format!("</{tag}>")), "{tag}");
        }
        assert!(page().contains("Copyright (c) 2022 Leon Sorokin"));
        assert!(page().contains("uPlot (v1.6.32)"));
    }

    #[test]
    fn what_a_script_looks_up_is_in_the_page() {
        let page = ours();
        let wanted = page.split("by(\"").skip(1);
        for id in wanted
            .filter_map(|rest| rest.split_once('"'))
            .map(|(id, _)| id)
        {
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
