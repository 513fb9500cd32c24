"use strict";
const root = document.documentElement;
const cards = [...document.querySelectorAll(".card")];
const buttons = [...document.querySelectorAll(".filter")];
const search = document.getElementById("search");
const none = document.getElementById("none");
let flag = "";

document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input");
  slider.addEventListener("input", () => pair.style.setProperty("--at", slider.value + "%"));
}

function applyFilter() {
  const part = search.value.trim().toLowerCase();
  let visible = 0;
  for (const card of cards) {
    const matches = (!flag || card.dataset.flags.split(" ").includes(flag)) && card.dataset.key.includes(part);
    card.hidden = !matches;
    visible += matches;
  }
  none.hidden = visible > 0;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    flag = button.dataset.flag;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    applyFilter();
  });
}
if (search) search.addEventListener("input", applyFilter);
const background = document.getElementById("background");
if (background) background.addEventListener("change", () => { document.body.dataset.background = background.value; });
