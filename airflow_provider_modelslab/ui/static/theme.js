// Light or dark as Airflow's own pages are, which keep the choice in the browser's storage.

const dark = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const chosen = localStorage.getItem("theme");
  const theme = chosen === "light" || chosen === "dark" ? chosen : dark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
}

apply();
addEventListener("storage", apply);
dark.addEventListener("change", apply);
