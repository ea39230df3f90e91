"use strict";
// Shows the completions that fit the filter, a few at a time.  Without scripts the page shows them all.
(() => {
  const form = document.querySelector("form.filter");
  if (!form) return;
  const AT_A_TIME = 12;
  const count = form.querySelector("output");
  const more = document.querySelector("button.more");
  const items = [...document.querySelectorAll(".completions > li")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  let shown = AT_A_TIME;

  function update() {
    const { arm, verdict, text } = form.elements;
    const words = text.value.toLowerCase().trim();
    let fitting = 0;
    items.forEach((item, i) => {
      const fits =
        (!arm.value || item.dataset.arm === arm.value) &&
        (!verdict.value || item.dataset.verdict === verdict.value) &&
        texts[i].includes(words);
      fitting += fits;
      item.hidden = !fits || fitting > shown;
    });
    count.textContent = `${fitting} of ${items.length} completions`;
    more.hidden = fitting <= shown;
  }

  form.addEventListener("input", () => {
    shown = AT_A_TIME;
    update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const before = items.filter((item) => !item.hidden).length;
    shown += AT_A_TIME;
    update();
    items.filter((item) => !item.hidden)[before].focus(); // so that the keyboard goes on where the new ones begin
  });
  form.hidden = false;
  update();
})();
