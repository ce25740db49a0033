/** The pause before something is tried again that failed since a reply was late (`onTimeout: "keep"`), in milliseconds. */
export const LATE_REPLY_RETRY_MS = 1000;
