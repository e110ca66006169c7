// Name and password of an admin, where the server wants them. The login is a cookie that no script can read.

import { login } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";

export function loginView(page, done) {
  const name = h("input", { id: "name", autocomplete: "username", required: true, maxlength: 64 });
  const password = h("input", { id: "password", type: "password", autocomplete: "current-password", required: true, maxlength: 128 });
  const fault = h("p.fault", { role: "alert" });
  const form = h(
    "form.login",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        fault.textContent = "";
        try {
          await login(name.value, password.value);
          done();
        } catch (error) {
          fault.textContent = error.message;
          password.select();
        }
      },
    },
    h("h1", null, t("log_in")),
    h("label", { for: "name" }, t("admin_name")),
    name,
    h("label", { for: "password" }, t("password")),
    password,
    h("button", { type: "submit" }, t("log_in")),
    fault,
    h("p.empty", null, t("log_in_how")),
  );
  page.append(h("section", null, form));
  name.focus();
  return {};
}
