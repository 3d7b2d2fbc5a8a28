"use strict";
const page = document.documentElement;

function show(language) {
  page.dataset.language = language;
  page.lang = language === "zh" ? "zh-CN" : "en";
}

show((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
document.querySelector("button.language").addEventListener("click", () => {
  show(page.dataset.language === "zh" ? "en" : "zh");
});

