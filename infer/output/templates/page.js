// The data of a report, for the scripts that follow.

const data = JSON.parse(document.getElementById("data").textContent);
