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

function choose() {
  const part = search.value.trim().toLowerCase();
  let left = 0;
  for (const card of cards) {
    const fits = (!flag || card.dataset.flags.split(" ").includes(flag)) && card.dataset.key.includes(part);
    card.hidden = !fits;
    left += fits;
  }
  none.hidden = left > 0;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    flag = button.dataset.flag;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    choose();
  });
}
if (search) search.addEventListener("input", choose);
const behind = document.getElementById("behind");
if (behind) behind.addEventListener("change", () => { document.body.dataset.behind = behind.value; });
