// The search page names only the page of a hit. Where a hit is one term of the glossary, say which.
(() => {
  "use strict";
  const name = (link) => {
    const term = /#term-(.+)$/.exec(link.href);
    if (term && !link.dataset.named) {
      link.dataset.named = "yes";
      link.append(": " + decodeURIComponent(term[1]).replaceAll("-", " "));
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    const results = document.getElementById("search-results");
    if (results) {
      const all = () => results.querySelectorAll("ul.search a").forEach(name);
      new MutationObserver(all).observe(results, { childList: true, subtree: true });
    }
  });
})();
