// What a stroke is called, and how sure that is.

import { t, word } from "./i18n.js";

export const OTHER = "other";

/**
 * Name and probability for a reader. Where the model was not sure enough of any class it says `other`, and how likely that is a
 * movement that is no stroke; what a coach wants to see then is which stroke it came nearest to.
 */
export function called({ stroke, confidence, probabilities }) {
  const [nearest, sure] = Object.entries(probabilities ?? {}).reduce((best, next) => (next[1] > best[1] ? next : best), [stroke, -1]);
  if (stroke !== OTHER || nearest === OTHER) return { name: word(stroke), sure: confidence ?? null };
  return { name: `${t("unsure")}: ${word(nearest)}`, sure };
}

export const percent = (sure) => (sure === null ? "–" : `${Math.round(sure * 100)} %`);
