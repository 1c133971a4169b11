/** The answers of `authorize`, by the numbers of contracts/types/Decision.sol. */
export const DECISION = {
  ServiceUnknown: 0n,
  Allowed: 1n,
  ImageUnknown: 2n,
  ImageRemoved: 3n,
  ImagePending: 4n,
  ImageRetired: 5n,
  ServiceTcbNotUpToDate: 6n,
  ServiceDeviceNotAllowed: 7n,
  ReleasePaused: 8n,
  TeeSuspended: 9n,
  TcbNotAccepted: 10n,
  PlatformNotAllowed: 11n,
  PlatformKindMismatch: 12n,
  DeviceNotAllowed: 13n,
  KmsImageNotAllowed: 14n,
  PolicyUnavailable: 15n,
} as const;

export type DecisionName = keyof typeof DECISION;
